/** Bad input and impossible wishes: each gets its status, its code and what to do next, and changes nothing. */
import assert from 'node:assert/strict';
import type { Scenario, TestLab } from '../harness.ts';
import { vmState } from '../../../src/lab/guests.ts';

const migrate = (vm: string, body: unknown) => ({ method: 'POST', path: `/vms/${vm}/migrate`, body });
const usage = { status: 400, code: 'invalid-input' } as const;

async function badLimits(lab: TestLab): Promise<void> {
  const { vm } = await lab.guest('idle');
  const to = lab.otherThan(vm.host);
  const absurd = [
    { maxDowntimeMs: -5 },
    { maxDowntimeMs: 0 },
    { maxDowntimeMs: 1e12 },
    { maxDowntimeMs: 'soon' },
    { maxBandwidthBytesPerSecond: -1 },
    { maxBandwidthBytesPerSecond: 1 },
    { deadlineMs: 0 },
    { deadlineMs: -1 },
    { parallelStreams: 1000 },
    { parallelStreams: -1 },
    { compression: 'best' },
    { whenNotConverging: 'pray' },
    { shutdownTimeoutMs: 0 },
  ];
  for (const policy of absurd) await lab.refused(migrate(vm.name, { to, policy }), usage);
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'refused: names that are not there',
    async run(lab) {
      const { vm } = await lab.guest('idle');
      await lab.refused(migrate('no-such-vm', { to: 'h2' }), { status: 404, code: 'not-found', names: 'no-such-vm' });
      await lab.refused(migrate(vm.name, { to: 'h99' }), { status: 404, code: 'not-found', names: 'h99' });
      await lab.refused(
        { method: 'GET', path: '/vms/no-such-vm' },
        { status: 404, code: 'not-found', names: 'no-such-vm' },
      );
      await lab.refused(
        { method: 'GET', path: '/migrations/mig_no' },
        { status: 404, code: 'not-found', names: 'mig_no' },
      );
      await lab.refused(
        { method: 'POST', path: '/hosts/h99/cordon' },
        { status: 404, code: 'not-found', names: 'h99' },
      );
    },
  },
  { name: 'refused: negative and absurd limits', run: badLimits },
  {
    name: 'refused: malformed JSON, unknown fields, wrong types, no token',
    async run(lab) {
      const { vm } = await lab.guest('idle');
      const path = `/vms/${vm.name}/migrate`;
      await lab.refused({ method: 'POST', path, text: '{"to": "h2"' }, usage);
      await lab.refused({ method: 'POST', path, text: '[]' }, usage);
      await lab.refused({ method: 'POST', path, text: '"h2"' }, usage);
      await lab.refused(migrate(vm.name, { to: 'h2', speed: 'fast' }), {
        status: 400,
        code: 'unknown-field',
        names: 'speed',
      });
      await lab.refused(migrate(vm.name, { to: 'h2', policy: { haste: 1 } }), {
        status: 400,
        code: 'unknown-field',
        names: 'haste',
      });
      await lab.refused(migrate(vm.name, { to: 42 }), usage);
      await lab.refused(migrate(vm.name, { to: 'h2', technique: 'magic' }), usage);
      await lab.refused({ method: 'POST', path: '/vms', body: { name: 'Bad Name!' } }, usage);
      await lab.refused({ method: 'POST', path: '/vms', body: { name: 'big', memoryMiB: -1 } }, usage);
      await lab.refused({ method: 'GET', path: '/migrations?limit=-1' }, usage);
      const answer = await lab.request('GET', '/vms', undefined, { authorization: 'Bearer wrong' });
      assert.equal(answer.status, 401);
    },
  },
  {
    name: 'refused: to where it runs, to a cordoned host, to a full one',
    async run(lab) {
      const { vm } = await lab.guest('idle');
      const to = lab.otherThan(vm.host);
      await lab.refused(migrate(vm.name, { to: vm.host }), { status: 422, code: 'same-host', names: vm.host });
      await lab.client.cordonHost({ params: { host: to } });
      try {
        await lab.refused(migrate(vm.name, { to }), { status: 422, code: 'cordoned', names: to });
      } finally {
        await lab.client.uncordonHost({ params: { host: to } });
      }
      // A VM that is off holds no room; one that runs with all that is left does, and boots no further than its BIOS.
      const host = await lab.client.getHost({ params: { host: to } });
      const filler = await lab.client.createVm({
        body: { name: 'filler', host: to, memoryMiB: host.capacityMiB - host.usedMiB - 64, diskMiB: 1, network: null },
      });
      try {
        await vmState(lab.client, filler.id, ['running']);
        await lab.refused(migrate(vm.name, { to }), { status: 422, code: 'no-room', names: to });
      } finally {
        await lab.remove(filler);
      }
      await lab.clean();
    },
  },
  {
    name: 'refused: policies that contradict themselves',
    async run(lab) {
      const { vm } = await lab.guest('idle');
      const to = lab.otherThan(vm.host);
      const policy = { parallelStreams: 4 };
      await lab.refused(migrate(vm.name, { to, technique: 'post-copy', policy }), {
        status: 422,
        code: 'policy-conflict',
      });
    },
  },
  {
    name: 'refused: a VM that is off, and deleting one that runs',
    async run(lab) {
      const { vm } = await lab.create({ name: 'off', memoryMiB: 192 });
      await lab.refused(
        { method: 'DELETE', path: `/vms/${vm.name}` },
        { status: 409, code: 'wrong-state', names: vm.name },
      );
      await lab.client.stopVm({ params: { vm: vm.id }, body: {} });
      await vmState(lab.client, vm.id, ['stopped']);
      await lab.refused(migrate(vm.name, { to: lab.otherThan(vm.host) }), {
        status: 409,
        code: 'wrong-state',
        names: vm.name,
      });
      await lab.remove(vm);
      await lab.clean();
    },
  },
  {
    name: 'refused: a host that says nothing',
    async run(lab) {
      const { vm } = await lab.guest('idle');
      const to = lab.otherThan(vm.host);
      await lab.disturb({ kind: 'kill-agent', host: to, afterwards: 'hold' });
      try {
        const silent = async () => (await lab.client.getHost({ params: { host: to } })).state === 'silent';
        await lab.until(`${to} to be silent`, silent);
        await lab.refused(migrate(vm.name, { to }), { status: 422, code: 'unreachable', names: to });
      } finally {
        await lab.mend();
      }
      await lab.clean();
    },
  },
  {
    name: 'refused: a second migration of a VM, and deleting or stopping it meanwhile; the first completes',
    async run(lab) {
      const test = await lab.guest('idle');
      const before = await test.guest.status();
      const [to, third] = lab.hosts.filter((host) => host !== test.vm.host);
      assert(to !== undefined && third !== undefined);
      await lab.withLinkSpeed('100mbit', async () => {
        const first = await lab.migrate(test.vm, to, 'pre-copy');
        await lab.warmingUp(first);
        const name = test.vm.name;
        await assertCode(lab, migrate(name, { to: third }), 409, 'busy');
        await assertCode(lab, { method: 'DELETE', path: `/vms/${name}` }, 409);
        await lab.withLinkSpeed('1gbit', async () => assert.equal((await lab.ended(first)).phase, 'completed'));
      });
      await lab.unharmed(test, before);
      await lab.clean();
    },
  },
  {
    name: 'refused: of two migrations of one VM asked for at the same moment exactly one starts',
    async run(lab) {
      const test = await lab.guest('idle');
      const before = await test.guest.status();
      const targets = lab.hosts.filter((host) => host !== test.vm.host);
      const answers = await Promise.allSettled(targets.map((to) => lab.migrate(test.vm, to, 'pre-copy')));
      const started = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
      assert.equal(started.length, 1, `${started.length} started`);
      for (const migration of started) assert.equal((await lab.ended(migration)).phase, 'completed');
      await lab.unharmed(test, before);
      await lab.clean();
    },
  },
];

/** While a VM moves its records change by themselves, so only the answer is looked at. */
async function assertCode(
  lab: TestLab,
  request: { method: string; path: string; body?: unknown },
  status: number,
  code?: string,
): Promise<void> {
  const answer = await lab.request(
    request.method,
    request.path,
    request.body === undefined ? undefined : JSON.stringify(request.body),
  );
  assert.equal(answer.status, status, JSON.stringify(answer.body));
  if (code !== undefined) assert.equal((answer.body as { code?: string }).code, code);
}
