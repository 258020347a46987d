/**
 * A program: the real server over HTTP with a large fleet on record, whose hosts report every second. No agent is connected, so
 * nothing moves; what is measured is what a page needs of the server. Prints its address and token, ends with its standard input.
 */
import { planned } from '../../src/control/planning.ts';
import { openPage } from '../../src/control/page.ts';
import { startPlane, type ControlPlane } from '../../src/control/plane.ts';
import { createApi } from '../../src/control/server.ts';
import type { GuestLoad } from '../../src/model/host.ts';
import type { HostId, VmId } from '../../src/model/ids.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { silentLog } from '../../src/runtime/log.ts';
import { seededRandom } from '../../src/runtime/random.ts';
import { entriesOf, hostCpus, largeFleet, type LargeFleet } from '../../src/sim/large-fleet.ts';
import { lead } from '../../src/store/leadership.ts';
import { Engine } from '../../src/store/memory.ts';

const reportEveryMs = 1000;
const token = 'token-of-a-benchmark';

async function serve(hosts: number, vms: number, pageDir: string): Promise<void> {
  const made = largeFleet(1, hosts, vms, Date.now());
  const clock = systemClock;
  const engine = new Engine({ clock }, undefined, { revision: 1, entries: entriesOf(made), history: [] });
  const store = engine.connect();
  const over = new AbortController();
  process.stdin.resume().once('end', () => over.abort());
  await lead(
    store,
    'bench',
    over.signal,
    async (leadership) => {
      const plane = await startPlane({
        store,
        leadership,
        door: { open: async () => ({ port: 0, close: async () => {} }) },
        clock,
        random: seededRandom(1),
        log: silentLog,
        version: 'bench',
        power: () => {
          throw new Error('hosts of a benchmark have no power controller');
        },
        makePlan: async (snapshot, ask) => planned(snapshot, ask),
        recovery: { trustGuard: false, lockWaitMs: 120_000 },
        sleep: { sendMagic: async () => {} },
        onNewerTerm: () => {},
      });
      report(plane, made);
      const api = createApi({ plane, token, log: silentLog, page: openPage(pageDir) });
      const url = await api.listen({ host: '127.0.0.1', port: 0 });
      const reporting = setInterval(() => report(plane, made), reportEveryMs);
      process.stdout.write(`${JSON.stringify({ url, token })}\n`);
      await new Promise<void>((resolve) => over.signal.addEventListener('abort', () => resolve(), { once: true }));
      clearInterval(reporting);
      await api.close();
      await plane.stop();
    },
    { clock },
  );
}

/** What all hosts say in one second. */
function report({ liveness }: ControlPlane, { hosts, vms, load }: LargeFleet): void {
  const now = Date.now();
  const guests = new Map(hosts.map(({ id }): [HostId, Record<VmId, GuestLoad>] => [id, {}]));
  // A day in a minute, so that there is something to be seen.
  vms.forEach(({ id, host }, index) => void (guests.get(host)![id] = load(index, now * 1440)));
  for (const { id, inventory } of hosts) {
    const own = guests.get(id)!;
    const cores = Object.values(own).reduce((sum, { cpuCores }) => sum + cpuCores, 0);
    liveness.heard(id, now, {
      at: now,
      cpu: Math.min(1, cores / hostCpus),
      memoryUsedMiB: 1000,
      memoryTotalMiB: inventory.memoryMiB,
      pressure: null,
      guests: own,
    });
  }
}

const [hosts = '1000', vms = '15000', pageDir = ''] = process.argv.slice(2);
await serve(Number(hosts), Number(vms), pageDir);
