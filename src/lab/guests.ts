/**
 * VMs made of the lab's own guest: kernel and initrd from the pool, a small blank disk, an address in the guest network,
 * and a client that asks them from the client's namespace. Not here: what runs inside (guest/).
 */
import { UserError } from '../model/failure.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Client } from '../wire/client.ts';
import type { VmView } from '../wire/endpoints.ts';
import { GuestClient } from './guest/guest-client.ts';
import { guestCommandLine } from './guest/command-line.ts';
import { run } from './exec.ts';
import { commandLine } from './processes.ts';
import { addressesOf, hostNames, namesOf, type LabState } from './state.ts';
import { guestInitrd, guestKernel, withLock, type Lab } from './up.ts';

const diskMiB = 64;
/** Addresses end before .250. */
const maxGuests = 140;
const defaultMemoryMiB = 256;
const bootMs = 90_000;

export interface LabVm {
  readonly name: string;
  readonly host?: string | undefined;
  readonly memoryMiB?: number | undefined;
  readonly fillMiB?: number | undefined;
  readonly load?: { readonly pagesPerSecond: number; readonly setMiB: number } | undefined;
  readonly diskWritesPerSecond?: number | undefined;
  readonly powerButton?: 'obeyed' | 'ignored' | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

export interface LabGuest {
  readonly vm: VmView;
  readonly guest: GuestClient;
}

/** Creates and boots a VM of the lab's guest and waits until it answers. @throws UserError */
export async function createLabVm(lab: Lab, wanted: LabVm, signal?: AbortSignal): Promise<LabGuest> {
  const vm = await withLock('guest-address', () => create(lab, wanted));
  const guest = guestOf(lab.state, vm.address ?? '');
  await untilReady(lab.client, vm, guest, signal);
  return { vm: await lab.client.getVm({ params: { vm: vm.id } }), guest };
}

/** With the first address that no VM has. */
async function create({ client, state }: Lab, wanted: LabVm): Promise<VmView> {
  const taken = new Set((await client.listVms()).map((vm) => vm.address));
  const addresses = addressesOf(state.octet);
  const number = Array.from({ length: maxGuests }, (_, i) => i + 1).find((i) => !taken.has(addresses.guest(i)));
  if (number === undefined) {
    throw new UserError('no-room', 'All addresses of the guest network are taken.', 'Delete a VM of the lab.');
  }
  const address = addresses.guest(number);
  const append = guestCommandLine({
    address: `${address}/24`,
    ...(wanted.fillMiB !== undefined && { fillMiB: wanted.fillMiB }),
    ...(wanted.load && { load: wanted.load }),
    ...(wanted.diskWritesPerSecond !== undefined && { diskWritesPerSecond: wanted.diskWritesPerSecond }),
    ...(wanted.powerButton && { powerButton: wanted.powerButton }),
  });
  return client.createVm({
    body: {
      name: wanted.name,
      memoryMiB: wanted.memoryMiB ?? defaultMemoryMiB,
      diskMiB,
      boot: { kind: 'kernel', kernel: guestKernel, initrd: guestInitrd, append },
      address,
      host: wanted.host ?? null,
      ...(wanted.labels && { labels: { ...wanted.labels } }),
      // What dies in a lab is looked at, unless a scenario says otherwise.
      restart: 'never',
    },
  });
}

/** Ends as soon as the VM's record says that it did not start, not only when its time is over. */
async function untilReady(
  client: Client,
  vm: VmView,
  guest: GuestClient,
  signal: AbortSignal | undefined,
): Promise<void> {
  const over = new AbortController();
  const both = signal ? AbortSignal.any([signal, over.signal]) : over.signal;
  let crashed: VmView | undefined;
  const watching = vmState(client, vm.id, ['crashed', 'stopped'], bootMs, over.signal).then(
    (view) => {
      crashed = view;
      over.abort();
    },
    () => {}, // it did not crash
  );
  try {
    await guest.waitReady({ timeoutMs: bootMs, signal: both });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    const now = crashed ?? (await client.getVm({ params: { vm: vm.id } }));
    const why = now.message === null ? '' : `: ${now.message}`;
    throw new UserError(
      crashed ? 'wrong-state' : 'timed-out',
      `The guest of ${vm.name} does not answer: the VM is ${now.state}${why}`,
      `Look at ${now.host}'s logs, or at its console: drover vm console ${vm.name}`,
      { cause },
    );
  } finally {
    over.abort();
    await watching;
  }
}

export function guestOf(state: LabState, address: string): GuestClient {
  return new GuestClient({ address, netns: namesOf(state.name).client });
}

/** Waits until the VM's record says one of these states. @throws Error after `timeoutMs` */
export async function vmState(
  client: Client,
  vm: string,
  states: readonly VmView['state'][],
  timeoutMs = 60_000,
  signal?: AbortSignal,
): Promise<VmView> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const view = await client.getVm({ params: { vm } }, { ...(signal && { signal }) });
    if (states.includes(view.state)) return view;
    if (performance.now() > deadline) {
      throw new Error(`${view.name} is ${view.state} after ${timeoutMs} ms, not ${states.join(' or ')}`);
    }
    await systemClock.sleep(50, signal);
  }
}

export interface GuestProcess {
  readonly host: string;
  readonly pid: number;
}

/** QEMU processes on the lab's hosts, of one VM or of all, by what really runs. */
export async function guestProcesses(state: LabState, vmId?: string): Promise<GuestProcess[]> {
  const lists = await Promise.all(
    hostNames(state.hosts).map(async (host) => {
      const pids = await run('ip', ['netns', 'pids', namesOf(state.name).host(host)]);
      return pids
        .split(/\s+/)
        .filter(Boolean)
        .map((pid) => ({ host, pid: Number(pid) }));
    }),
  );
  return lists.flat().filter(({ pid }) => {
    const [program = '', ...argv] = commandLine(pid);
    return program.includes('qemu-system') && (vmId === undefined || argv.some((word) => word.includes(`${vmId}.`)));
  });
}
