/** Hypervisor and shared pool as one life of a program sees them: what it asks and hears ends with that life, and waits while it is frozen. */
import type { LeasePool } from '../agent/guard/lease.ts';
import type { Guest, GuestEvent, Hypervisor } from '../hypervisor/hypervisor.ts';
import type { Life } from './life.ts';

/** @param onEvent called for whoever hears an event, before he does */
export function gatedHypervisor(inner: Hypervisor, life: Life, onEvent: (event: GuestEvent) => void): Hypervisor {
  return {
    describe: () => life.answer(() => inner.describe()),
    freeze: (spec) => inner.freeze(spec),
    launch: (options) => life.answer(async () => gatedGuest(await inner.launch(options), life, onEvent)),
    receive: (options, transfer, listenOn) =>
      life.answer(async () => {
        const { guest, endpoint } = await inner.receive(options, transfer, listenOn);
        return { guest: gatedGuest(guest, life, onEvent), endpoint };
      }),
    adopt: () => life.answer(async () => (await inner.adopt()).map((guest) => gatedGuest(guest, life, onEvent))),
  };
}

function gatedGuest(inner: Guest, life: Life, onEvent: (event: GuestEvent) => void): Guest {
  const { transfer, tasks } = inner;
  return {
    key: inner.key,
    pid: inner.pid,
    running: inner.running,
    consolePath: inner.consolePath,
    gone: life.answer(() => inner.gone),
    state: () => life.answer(() => inner.state()),
    events: (signal) => life.each(inner.events(signal), onEvent),
    continue: () => life.answer(() => inner.continue()),
    powerDown: () => life.answer(() => inner.powerDown()),
    destroy: () => life.answer(() => inner.destroy()),
    load: () => life.answer(() => inner.load()),
    memoryUse: () => life.answer(() => inner.memoryUse()),
    tasks: tasks && {
      boot: (signal) => life.answer(() => tasks.boot(signal)),
      run: (task, signal) => life.answer(() => tasks.run(task, signal)),
      look: (task, signal) => life.answer(() => tasks.look(task, signal)),
      cancel: (task, signal) => life.answer(() => tasks.cancel(task, signal)),
    },
    transfer: {
      start: (to, options) => life.answer(() => transfer.start(to, options)),
      numbers: () => life.answer(() => transfer.numbers()),
      limitDowntime: (ms) => life.answer(() => transfer.limitDowntime(ms)),
      limitBandwidth: (limit) => life.answer(() => transfer.limitBandwidth(limit)),
      completeNow: () => life.answer(() => transfer.completeNow()),
      switchToPostCopy: () => life.answer(() => transfer.switchToPostCopy()),
      cancel: () => life.answer(() => transfer.cancel()),
      cutConnection: () => life.answer(() => transfer.cutConnection()),
      pause: () => life.answer(() => transfer.pause()),
      listenAgain: (listenOn) => life.answer(() => transfer.listenAgain(listenOn)),
      resume: (to) => life.answer(() => transfer.resume(to)),
    },
  };
}

export function gatedPool(inner: LeasePool, life: Life): LeasePool {
  return {
    name: inner.name,
    identify: () => life.answer(() => inner.identify()),
    read: (host) => life.answer(() => inner.read(host)),
    writeLease: (lease, how) => life.answer(() => inner.writeLease(lease, how)),
    writeTaken: (mark) => life.answer(() => inner.writeTaken(mark)),
  };
}
