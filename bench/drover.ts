/** The contestant that is measured: Drover, asked over its API, with a lab's server and agents. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { guestOf } from '../src/lab/guests.ts';
import { migrationEnded, migrationIs } from '../src/lab/moves.ts';
import { guestCommandLine } from '../src/lab/guest/command-line.ts';
import { addressesOf, directoriesOf, runDirectoryOf } from '../src/lab/state.ts';
import { guestInitrd, guestKernel, type Lab } from '../src/lab/up.ts';
import { systemClock } from '../src/runtime/clock.ts';
import type { VmView } from '../src/wire/endpoints.ts';
import type { BenchHost, Contestant } from './contestant.ts';
import { otherHost } from './contestant.ts';

/** Seldom: what asks a server that is being measured takes of its time. */
const askEveryMs = 2_000;
const endedMs = 120_000;

export interface BenchGuest {
  readonly name: string;
  readonly number: number;
  readonly memoryMiB: number;
  readonly fillMiB: number;
  readonly host: BenchHost;
}

/**
 * Through the API, as a user would. Without an address in its record: the lab's own prober would be a second one, which only
 * this contestant's guest had to answer.
 */
export async function createDroverVm(lab: Lab, wanted: BenchGuest, signal: AbortSignal): Promise<VmView> {
  const vm = await lab.client.createVm(
    {
      body: {
        name: wanted.name,
        memoryMiB: wanted.memoryMiB,
        diskMiB: 64,
        boot: { kind: 'kernel', kernel: guestKernel, initrd: guestInitrd, append: appendOf(lab, wanted) },
        host: wanted.host,
      },
    },
    { signal },
  );
  await guestOf(lab.state, addressOf(lab, wanted)).waitReady({ timeoutMs: 120_000, signal });
  return lab.client.getVm({ params: { vm: vm.id } }, { signal });
}

export function addressOf(lab: Lab, { number }: Pick<BenchGuest, 'number'>): string {
  return addressesOf(lab.state.octet).guest(number);
}

export function appendOf(lab: Lab, wanted: BenchGuest): string {
  return guestCommandLine({ address: `${addressOf(lab, wanted)}/24`, fillMiB: wanted.fillMiB });
}

export async function createDrover(lab: Lab, wanted: BenchGuest, signal: AbortSignal) {
  const vm = await createDroverVm(lab, wanted, signal);
  const address = addressOf(lab, wanted);
  let host = wanted.host;
  const contestant: Contestant = {
    name: 'drover',
    guest: guestOf(lab.state, address),
    address,
    get host() {
      return host;
    },
    monitor(where) {
      const runDirectory = runDirectoryOf(directoriesOf(lab.state.name).host(where));
      const guest = existsSync(runDirectory) && readdirSync(runDirectory).find((name) => name.startsWith(`${vm.id}.`));
      return guest ? join(runDirectory, guest, 'rescue.sock') : undefined;
    },
    prepare: async () => {},
    start(technique, _writer, signal) {
      const to = otherHost(host);
      const asked = lab.client.migrateVm({ params: { vm: vm.id }, body: { to, technique } }, { signal });
      const done = asked.then(async ({ id }) => {
        for (;;) {
          await systemClock.sleep(askEveryMs, signal);
          const view = await lab.client.getMigration({ params: { migration: id } }, { signal });
          if (view.ended && view.phase !== 'completed') {
            throw new Error(`drover: ${view.failure?.message ?? view.phase} ${view.failure?.detail ?? ''}`);
          }
          if (view.ended) return;
        }
      });
      return {
        done,
        async finish() {
          const { id } = await asked;
          await migrationEnded(lab.client, id, { signal, timeoutMs: endedMs });
          const { measures } = await migrationIs(lab.client, id, ({ phase }) => phase === 'completed', { signal });
          host = to;
          return { firstPageMs: measures.firstPageMs };
        },
      };
    },
  };
  return { vm, contestant };
}
