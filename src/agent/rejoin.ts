/**
 * The source's side of a post-copy's link: notices that it broke, and joins the two QEMUs again, as often and for as long as
 * it takes. Both sides are kept meanwhile; nobody is cancelled, nobody continued. No server has a part in it.
 *
 *   carries --(QEMU says so, or silence)--> lost --+-> rejoin (agent to agent): the target breaks off and listens
 *      ^                                      ^    +-> this side breaks off, then sends the rest to where the target listens
 *      +-----(post-copy goes on)-------+      +--- (refused, unreachable, broken again: a pause, then once more)
 *                                      +-----------'
 *
 * The target is asked first, because a connection must not be given up that may still bring it what it needs to run at all:
 * a copy without its execution state ends when its link ends. Nor is one broken off that carries the last pages: QEMU
 * takes a link that ends there for a failed move and may run the guest here again.
 *
 * Not here: a link that breaks before the switch (outgoing.ts), the target's side (incoming.ts).
 */
import type { Guest, TransferNumbers, TransferState } from '../hypervisor/hypervisor.ts';
import { messageOf } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { Recovering } from '../model/migration.ts';
import type { AgentContext } from './context.ts';
import type { TargetLink } from './handover.ts';
import type { MoveFacts } from './move-facts.ts';

/** A silent cut gives no event: this long without a byte while there is something to send means that the link is gone. */
const firstStallMs = 3000;
/** After alarms that were none: the link is slow, not broken. */
const longestStallMs = 12_000;
/** Without an alarm for so long, silence is trusted as at first. */
const calmMs = 60_000;
/** What is in QEMU's and the kernel's hands may arrive yet: with no more than this left a link is never broken off. */
const lastBytes = 256 * 1024;
const firstPauseMs = 500;
const longestPauseMs = 2000;
/** From connecting to going on. */
const joinMs = 5000;

export interface PostCopyMove {
  readonly context: AgentContext;
  readonly guest: Guest;
  readonly link: TargetLink;
  readonly facts: MoveFacts;
  readonly signal: AbortSignal;
  /** Where the target listened last; kept over a restart. */
  endpoint(): Endpoint;
  listensAt(endpoint: Endpoint): void;
}

export class PostCopyLink {
  readonly #move: PostCopyMove;
  #state: TransferState['kind'] = 'post-copy';
  #changed = Promise.withResolvers<void>();
  #sentBytes = 0;
  #remainingBytes = 0;
  /** By the monotonic clock: since when nothing was sent, and when silence was last wrongly taken for a break. */
  #quietSince: number;
  #falseAlarmAt = -Infinity;
  #stallMs = firstStallMs;
  #lost: Recovering | undefined;
  /** An attempt got as far as connecting. */
  #joined = false;
  #isRejoining = false;

  constructor(move: PostCopyMove) {
    this.#move = move;
    this.#quietSince = move.context.clock.monotonic();
  }

  /** What is being done about a broken link; undefined while it carries. */
  get recovering(): Recovering | undefined {
    return this.#lost;
  }

  /** QEMU's word. */
  is(state: TransferState['kind'], at: number): void {
    if (state === this.#state && state === 'post-copy') return;
    this.#state = state;
    this.#wake();
    if (state === 'post-copy') this.#carries(at);
    else if (state === 'post-copy-broken') this.#isLost(at);
  }

  /** Each sample, in post-copy: the only way to notice a link that died in silence. */
  sampled(numbers: TransferNumbers, at: number): void {
    const { clock } = this.#move.context;
    if (!this.#isRejoining) this.is(numbers.state.kind, at); // it asks for itself, and this answer may be older
    const moved = numbers.sentBytes !== this.#sentBytes;
    this.#sentBytes = numbers.sentBytes;
    this.#remainingBytes = numbers.remainingBytes;
    if (moved || this.#state !== 'post-copy') {
      this.#quietSince = clock.monotonic();
      if (moved && this.#state === 'post-copy') this.#carries(at);
      return;
    }
    if (clock.monotonic() - this.#falseAlarmAt > calmMs) this.#stallMs = firstStallMs;
    if (this.#mayBeBroken && clock.monotonic() - this.#quietSince >= this.#stallMs) this.#isLost(at);
  }

  get #mayBeBroken(): boolean {
    return this.#state === 'post-copy' && this.#remainingBytes > lastBytes;
  }

  #isLost(at: number): void {
    if (this.#lost) return;
    this.#lost = { since: at, attempts: 0, lastError: null };
    this.#joined = false;
    this.#move.facts.say({ kind: 'link-lost' }, at);
    if (this.#isRejoining) return; // it goes on with this one
    this.#isRejoining = true;
    void this.#rejoin()
      .catch((error: unknown) => {
        if (!this.#move.signal.aborted) this.#log('error', error, 'rejoining ended');
      })
      .finally(() => (this.#isRejoining = false));
  }

  #carries(at: number): void {
    const { clock } = this.#move.context;
    this.#quietSince = clock.monotonic();
    if (!this.#lost) return;
    if (!this.#joined) {
      // It went on by itself: what looked like a break was a slow link, or TCP had healed it.
      this.#falseAlarmAt = clock.monotonic();
      this.#stallMs = Math.min(longestStallMs, this.#stallMs * 2);
    }
    this.#lost = undefined;
    this.#move.facts.say({ kind: 'link-restored' }, at);
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  async #rejoin(): Promise<void> {
    const { context, signal } = this.#move;
    for (let pauseMs = firstPauseMs; this.#lost; pauseMs = Math.min(longestPauseMs, pauseMs * 1.5)) {
      signal.throwIfAborted();
      this.#lost = { ...this.#lost, attempts: this.#lost.attempts + 1 };
      try {
        await this.#attempt();
      } catch (error) {
        signal.throwIfAborted();
        this.#log('debug', error, 'not rejoined yet');
        if (this.#lost) this.#lost = { ...this.#lost, lastError: messageOf(error) };
      }
      if (this.#lost) await Promise.race([context.clock.sleep(pauseMs, signal), this.#changed.promise]);
    }
  }

  /** @throws with what stands in the way */
  async #attempt(): Promise<void> {
    const { link, guest, signal } = this.#move;
    if (this.#state === 'post-copy-rejoining') return this.#whenJoined(); // an earlier attempt still connects
    if (this.#state === 'post-copy' && !this.#mayBeBroken) return; // the last pages are on their way, or it carries again
    const reply = await link.rejoin(guest.key.vm, true);
    switch (reply?.result) {
      case 'listening':
        if (reply.endpoint) this.#move.listensAt(reply.endpoint);
        break;
      case 'complete':
        return; // nothing to send any more: the order to release this side comes
      case 'not-switched':
      case 'incomplete':
      case 'gone':
      case 'unknown':
        throw new Error(reply.says);
      case undefined:
        // It may listen still, where it said so last; an agent that is away makes that no worse.
        if (this.#state !== 'post-copy-broken') throw new Error('the agent of the target cannot be reached');
    }
    signal.throwIfAborted();
    if (!this.#lost) return;
    if (this.#state === 'post-copy') await this.#breakOff();
    this.#state = 'post-copy-rejoining';
    this.#joined = true;
    try {
      await guest.transfer.resume(this.#move.endpoint());
    } catch (error) {
      this.#state = 'post-copy-broken';
      throw error;
    }
    await this.#whenJoined();
  }

  /** The target has broken off: on a network that still carries, this side may know already. */
  async #breakOff(): Promise<void> {
    const { context, guest, signal } = this.#move;
    await guest.transfer.pause().catch(() => {});
    await Promise.race([this.#changed.promise, context.clock.sleep(joinMs / 10, signal)]);
    await this.#look();
    if (this.#state === 'post-copy') throw new Error('QEMU does not give up the broken connection');
  }

  async #whenJoined(): Promise<void> {
    const { context, guest, signal } = this.#move;
    const deadline = context.clock.monotonic() + joinMs;
    while (this.#state === 'post-copy-rejoining') {
      if (context.clock.monotonic() >= deadline) {
        // Connected, and broken again before they agreed: nobody else would notice. Refused while it still connects.
        await guest.transfer.pause().catch(() => {});
        throw new Error(`not joined within ${joinMs / 1000} s`);
      }
      await Promise.race([this.#changed.promise, context.clock.sleep(joinMs / 10, signal)]);
      await this.#look(); // an event may have come before this was waited for
    }
    if (this.#state !== 'post-copy-broken') return;
    const { state } = await guest.transfer.numbers();
    throw new Error((state.kind === 'post-copy-broken' && state.words) || 'the link broke again');
  }

  async #look(): Promise<void> {
    const { context, guest } = this.#move;
    const numbers = await guest.transfer.numbers().catch(() => undefined);
    if (numbers) this.is(numbers.state.kind, context.clock.now());
  }

  #log(level: 'debug' | 'error', error: unknown, what: string): void {
    this.#move.context.log[level]({ error: messageOf(error), attempts: this.#lost?.attempts }, what);
  }
}
