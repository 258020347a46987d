/**
 * The disk of a simulated host: the agent's journal and its facts, as the files of agent/journal.ts and agent/facts.ts keep
 * them. It outlives the agent. The journal is synced at each write and outlives the power as well; facts are only written, so
 * the newest of them go with the power.
 */
import type { FactDisk, Numbered } from '../agent/facts.ts';
import type { AgentEntry, JournalDisk, VmEntry } from '../agent/journal.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { VmId } from '../model/ids.ts';
import type { Life } from './life.ts';

/** Linux writes back what is older than this. */
const writeBackMs = 30_000;

/** A program may be killed right before or right after a write. */
export type AtWrite = (what: string, write: () => void) => void;

export class HostDisk {
  /** Nothing more can be written. */
  isFull = false;
  #agent: AgentEntry | undefined;
  readonly #vms = new Map<VmId, VmEntry>();
  #facts: { readonly numbered: Numbered; readonly writtenAt: number }[] = [];
  readonly #now: () => number;
  readonly #onAcknowledged: (fact: MigrationFact) => void;

  /** @param onAcknowledged called with each fact about a move that need not be kept any more */
  constructor(now: () => number, onAcknowledged: (fact: MigrationFact) => void) {
    this.#now = now;
    this.#onAcknowledged = onAcknowledged;
  }

  journal(life: Life, atWrite: AtWrite): JournalDisk {
    const write = this.#writer(life, atWrite);
    return {
      agent: () => this.#agent,
      vms: () => [...this.#vms.values()],
      writeAgent: (entry) => write('agent', () => (this.#agent = entry)),
      writeVm: (entry) => write(entry.part.kind, () => this.#vms.set(entry.vm, entry)),
      removeVm: (id) => {
        if (!life.isOver) atWrite('forget', () => this.#vms.delete(id));
      },
    };
  }

  facts(life: Life, atWrite: AtWrite): FactDisk {
    const write = this.#writer(life, atWrite);
    return {
      read: () => this.#facts.map(({ numbered }) => numbered),
      append: (numbered) =>
        write(`fact ${numbered.fact.fact.kind}`, () => this.#facts.push({ numbered, writtenAt: this.#now() })),
      replace: (all) =>
        write('facts', () => {
          const kept = new Set(all.map(({ number }) => number));
          this.#facts = this.#facts.filter(({ numbered: { number, fact } }) => {
            if (kept.has(number)) return true;
            if (fact.about === 'migration') this.#onAcknowledged(fact.fact);
            return false;
          });
        }),
    };
  }

  #writer(life: Life, atWrite: AtWrite) {
    return (what: string, fn: () => void): void => {
      if (life.isOver) return;
      if (this.isFull) throw new Error('ENOSPC: no space left on device');
      atWrite(what, fn);
    };
  }

  /** @param loses whether one that was not written back yet is lost: all after the first lost one are */
  loseWhatIsNotWrittenBack(loses: () => boolean): void {
    const now = this.#now();
    const first = this.#facts.findIndex(({ writtenAt }) => now - writtenAt < writeBackMs && loses());
    if (first !== -1) this.#facts.length = first;
  }

  /** For the checks: what the journal says, whoever runs. */
  entries(): VmEntry[] {
    return [...this.#vms.values()];
  }
}
