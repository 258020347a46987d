import { describe, expect, it } from 'vitest';
import type { GuestLoad } from '../model/host.ts';
import { silentLog } from '../runtime/log.ts';
import type { ReplyOf } from '../wire/endpoints.ts';
import { FakeFleet } from './fake-fleet.ts';
import { LoadsTold } from './loads.ts';
import { createApi } from './server.ts';

const using = (cpuCores: number): GuestLoad => ({
  cpuCores,
  memoryResidentMiB: 300,
  diskReadBytesPerSecond: 0,
  diskWriteBytesPerSecond: 0,
  netReceiveBytesPerSecond: 0,
  netSendBytesPerSecond: 0,
});

describe('loads for a reader of events', () => {
  it('are told of everything first, and then of what has changed enough to be seen', async () => {
    const fleet = await FakeFleet.start(['h1', 'h2']);
    const cores = { web1: 1, web2: 2 };
    fleet.guestLoad = (name) => using(cores[name as 'web1' | 'web2']); // the only ones there are
    await fleet.run('web1', 'h1');
    await fleet.run('web2', 'h2');
    await fleet.pass(1000);
    const told = new LoadsTold();
    const first = told.next(fleet.plane);
    expect(first?.hosts).toHaveLength(2);
    expect(first?.vms.map(({ cpuCores }) => cpuCores).toSorted()).toEqual([1, 2]);
    expect(told.next(fleet.plane)).toBeUndefined();
    cores.web1 = 1.02;
    await fleet.pass(1000);
    expect(told.next(fleet.plane)).toBeUndefined();
    cores.web1 = 1.06;
    await fleet.pass(1000);
    expect(told.next(fleet.plane)?.vms).toMatchObject([{ vm: fleet.vm('web1').id, cpuCores: 1.06 }]);
    await fleet.stopServer();
  });

  it('are those of the host that a VM is on: the process that waits for it elsewhere uses nothing', async () => {
    const fleet = await FakeFleet.start(['h1', 'h2']);
    const { id } = await fleet.run('web1', 'h1');
    await fleet.pass(1000);
    for (const name of ['h1', 'h2']) {
      const agent = fleet.agent(name);
      agent.load = { guests: { [id]: using(name === 'h1' ? 1.5 : 0) } };
      agent.report();
    }
    await fleet.pass(500);
    expect(new LoadsTold().next(fleet.plane)?.vms).toMatchObject([{ vm: id, cpuCores: 1.5 }]);
    await fleet.stopServer();
  });
});

describe('loads of the last hour', () => {
  it('are given of one host or VM by name or id, as means over half a minute', async () => {
    const fleet = await FakeFleet.start(['h1']);
    let cores = 1;
    fleet.guestLoad = () => using(cores);
    const { id } = await fleet.run('web1', 'h1');
    await fleet.pass(60_000);
    cores = 3;
    await fleet.pass(60_000);
    const api = createApi({ plane: fleet.plane, token: 'a-token-for-tests', log: silentLog, checkReplies: true });
    const ask = async (query: string) => {
      const headers = { authorization: 'Bearer a-token-for-tests' };
      return (await api.inject({ url: `/api/v1/loads${query}`, headers })).json<ReplyOf<'getLoads'>>();
    };
    const { id: of, stepMs, cpu } = await ask('?vm=web1');
    expect([of, stepMs]).toEqual([id, 30_000]);
    expect([cpu[0]?.value, cpu.at(-1)?.value]).toEqual([1, 3]);
    expect(cpu.length).toBeGreaterThanOrEqual(4);
    const times = cpu.map(({ at }) => at);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times.at(-1)).toBeLessThanOrEqual(fleet.clock.now());
    expect((await ask('?host=h1')).cpu.length).toBe(cpu.length);
    for (const query of ['', '?host=h1&vm=web1']) expect(await ask(query)).toMatchObject({ code: 'invalid-input' });
    expect(await ask('?vm=nothing')).toMatchObject({ code: 'not-found' });
    await api.close();
    await fleet.stopServer();
  });
});
