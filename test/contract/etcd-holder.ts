/** A process that holds an entry under a lease until it is killed; started by etcd.test.ts. */
import { openEtcd } from '../../src/store/etcd.ts';
import type { EtcdOptions } from '../../src/store/etcd.ts';

process.once('message', (options: EtcdOptions) => {
  void (async () => {
    const store = openEtcd(options);
    const lease = await store.lease(3_000);
    await store.commit([], [{ key: 'theirs', put: 1, lease: lease.id }]);
    process.send?.('held');
  })();
});
