/**
 * Rules of Drover that are broken on purpose, one at a time, to see that the checks notice: a simulator that never fails
 * proves nothing. Each is broken in the world around the product (its disk, its messages, its store), not in the product.
 */
import type { Journal } from '../agent/journal.ts';
import { isEnd } from '../migration/phases.ts';
import type { CommitFault } from './store.ts';
import type { Tamper } from './network.ts';
import type { World } from './world.ts';

export interface Fault {
  /** The rule, and how it is broken. */
  readonly says: string;
  /** Whether a write of this part does not get to the disk. */
  readonly forgets?: (what: string) => boolean;
  readonly journal?: (journal: Journal) => Journal;
  readonly tamper?: Tamper;
  readonly commit?: (random: () => number) => CommitFault;
  /** Once a second. */
  readonly act?: (world: World) => void;
}

export const noFault: Fault = { says: 'nothing is broken' };

export const faults: Readonly<Record<string, Fault>> = {
  'generations-ignored': {
    says: 'an agent keeps the newest generation of a VM and refuses what is older: it reads 0',
    journal: (journal) => ({
      ...journal,
      get agent() {
        return journal.agent;
      },
      vm(id) {
        const entry = journal.vm(id);
        return entry && { ...entry, generation: 0 };
      },
    }),
  },
  'handed-over-not-journaled': {
    says: '`go` is said only when `handed-over` is on disk: it is not written',
    forgets: (what) => what === 'handed-over',
  },
  'continuing-not-journaled': {
    says: 'a guest is let run only when `continuing` is on disk: it is not written',
    forgets: (what) => what === 'continuing',
  },
  'rolls-back-unproven': {
    says: 'a source goes on only with the proof that the copy never ran: every answer but yes is taken for it',
    tamper: (message) =>
      isOf(message, 'go-reply') && message['result'] !== 'continued' ? { ...message, result: 'gone-unrun' } : message,
  },
  'reservations-dropped': {
    says: 'room on the target is held from the decision on: reservations are thrown away',
    act: (world) => {
      for (const { plane } of world.leaders()) {
        plane?.fleet
          .change((draft) => {
            for (const { host } of plane.fleet.rooms.values()) {
              const room = draft.room(host);
              if (room) draft.putRoom({ ...room, reservationsMiB: {} });
            }
          })
          .catch(() => {}); // the store may be away
      }
    },
  },
  'acknowledged-unwritten': {
    says: 'a fact is acknowledged when it is on record: some commits are only claimed',
    commit: (random) => (guards, writes) =>
      writes.some(({ key }) => key.startsWith('migration/')) && random() < 0.05 ? 'pretend' : { guards, writes },
  },
  'unguarded-leader': {
    says: "every commit carries its term's guard: it is left out",
    commit: () => (guards, writes) => ({ guards: guards.filter(({ key }) => key !== 'control/leader'), writes }),
  },
  'recovery-during-move': {
    says: 'a VM with an open migration is started elsewhere only when both hosts answered or are fenced: silence is enough',
    act: (world) => {
      for (const { plane } of world.leaders()) {
        if (!plane) continue;
        const { fleet, liveness } = plane;
        const open = fleet
          .unsettledMigrations()
          .find(({ phase, source }) => !isEnd(phase) && liveness.isSilent(source));
        const elsewhere = [...fleet.hosts.values()].find(
          ({ id }) => id !== open?.source && id !== open?.target && !liveness.isSilent(id),
        );
        if (!open || !elsewhere) continue;
        fleet
          .change((draft) => {
            const vm = draft.vm(open.vm);
            if (!vm) return;
            const generation = vm.generation + 1;
            draft.putVm({ ...vm, host: elsewhere.id, generation, migration: null, state: { kind: 'starting' } });
          })
          .catch(() => {}); // the store may be away
      }
    },
  },
};

function isOf(message: unknown, type: string): message is Record<string, unknown> {
  return message !== null && typeof message === 'object' && 'type' in message && message.type === type;
}
