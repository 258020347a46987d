/**
 * Tasks in simulated guests: what a guest has begun lives in its memory, moves with it and ends with it, as in a guest whose
 * file system forgets. A guest booted from disk begins with nothing, under another name of its boot.
 *
 * Understood: `sleep SECONDS`, `fail STATUS`; anything else ends at once and says its own words.
 */
import type { TaskClaim, TaskProgram, TaskSeen } from './hypervisor.ts';
import type { MigrationWire } from './simulated-surroundings.ts';

type Ended = Extract<TaskSeen, { kind: 'ended' }>;

interface Begun {
  readonly endsAt: number;
  readonly end: Ended;
}

export class TaskMemory {
  readonly boot: string;
  /** Every task that was really run, in order: nothing is ever taken away here. */
  readonly ran: string[] = [];
  readonly #begun = new Map<string, Begun>();

  constructor(life: number) {
    this.boot = `boot-${life}`;
  }

  run({ id, boot, command, limitMs }: TaskProgram, now: number): void {
    if (boot !== this.boot || this.#begun.has(id)) return;
    this.ran.push(id);
    const [what, argument] = command;
    const lastsMs = what === 'sleep' ? Number(argument) * 1000 : 0;
    const end: Ended =
      lastsMs > limitMs
        ? ended('timed-out', 143)
        : ended('exited', what === 'fail' ? Number(argument) : 0, command.join(' '));
    this.#begun.set(id, { endsAt: now + Math.min(lastsMs, limitMs), end });
  }

  look({ id, boot }: TaskClaim, now: number): TaskSeen {
    const begun = this.#begun.get(id);
    if (begun !== undefined) return now < begun.endsAt ? { kind: 'running' } : begun.end;
    return boot === this.boot ? { kind: 'unclaimed' } : { kind: 'gone', why: 'other-boot' };
  }

  cancel({ id, boot }: TaskClaim, now: number): void {
    const begun = this.#begun.get(id);
    if (begun === undefined && boot !== this.boot) return;
    if (begun === undefined) this.#begun.set(id, { endsAt: now, end: ended('never-ran', 0) });
    else if (now < begun.endsAt) this.#begun.set(id, { endsAt: now, end: ended('cancelled', 143) });
  }
}

function ended(how: Ended['how'], status: number, output = ''): Ended {
  return { kind: 'ended', how, status, output, truncated: false };
}

/** By the world and the lineage of the memory. */
const memories = new WeakMap<MigrationWire, Map<number, TaskMemory>>();

export function tasksIn(wire: MigrationWire, life: number): TaskMemory {
  const ofWorld = memories.get(wire) ?? new Map<number, TaskMemory>();
  memories.set(wire, ofWorld);
  const memory = ofWorld.get(life) ?? new TaskMemory(life);
  ofWorld.set(life, memory);
  return memory;
}

/** What was ever run in any guest of this world, also in those that are gone. */
export function ranIn(wire: MigrationWire): string[] {
  return [...(memories.get(wire)?.values() ?? [])].flatMap(({ ran }) => ran);
}
