/**
 * What the source of a move tells the server, each fact once, and not while the guest waits: a fact costs disk and CPU here
 * and at the server, so what can wait is held back for a moment while the guest is paused. What finds no room on the disk is
 * held back until it does, so that a full disk stops nothing else of the move. Every fact carries its own time.
 */
import { messageOf } from '../model/failure.ts';
import type { MigrationId } from '../model/ids.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { Timer } from '../runtime/clock.ts';
import type { AgentContext } from './context.ts';
import type { FactBody } from './incoming.ts';

/** No longer, so that who watches a long pause sees it. */
export const holdMs = 250;
const canWait = new Set<FactBody['kind']>(['stopped', 'round', 'state-transferred', 'pre-paging']);
/** Whoever says these acts on their being on disk, and tries again where they are not. */
const decides = new Set<FactBody['kind']>(['handed-over', 'source-running', 'source-lost']);
const repeats = new Set<FactBody['kind']>(['round', 'measured', 'link-lost', 'link-restored']);

export class MoveFacts {
  readonly #context: AgentContext;
  readonly #migration: MigrationId;
  readonly #said = new Set<FactBody['kind']>();
  #held: MigrationFact[] | undefined;
  #timer: Timer | undefined;

  constructor(context: AgentContext, migration: MigrationId) {
    this.#context = context;
    this.#migration = migration;
  }

  /** @throws one of those that decide, where the disk does not take it */
  say(body: FactBody, at = this.#context.clock.now()): void {
    if (!repeats.has(body.kind) && this.#said.has(body.kind)) return;
    const fact = { migration: this.#migration, at, ...body };
    if (decides.has(body.kind)) {
      this.#tell();
      this.#context.facts.migration(fact);
    } else if (this.#held && canWait.has(body.kind)) this.#held.push(fact);
    else {
      this.#held = [...(this.#held ?? []), fact];
      this.tellHeld();
    }
    this.#said.add(body.kind); // not sooner: what found no room on the disk is said again
  }

  /** The guest is paused. */
  hold(): void {
    this.#held ??= [];
    this.#timer ??= this.#context.clock.setTimeout(() => this.tellHeld(), holdMs);
  }

  /** As soon as the disk takes it. */
  tellHeld(): void {
    try {
      this.#tell();
    } catch (error) {
      this.#context.log.error(
        { migration: this.#migration, error: messageOf(error) },
        'what was held back is not told yet',
      );
      this.#timer?.cancel();
      this.#timer = this.#context.clock.setTimeout(() => this.tellHeld(), holdMs);
    }
  }

  #tell(): void {
    const held = this.#held ?? [];
    for (let [fact] = held; fact; [fact] = held) {
      this.#context.facts.migration(fact);
      held.shift();
    }
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#held = undefined;
  }
}
