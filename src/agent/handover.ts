/**
 * The two-step handover between the agents of a move, on a direct channel that is open before the guest is paused.
 *
 *   source                                       target
 *   join ------------------------------------->  joined              (before the first page)
 *   guest paused: join --------------------->  joined              (a network that was cut tells nobody)
 *   QEMU completed; journal 'handed-over'
 *   go --------------------------------------->  journal 'continuing'; cont
 *                                    <---------  continued
 *
 * `go` is repeated until it is answered: the target does once what it was told any number of times. The same channel
 * carries `rejoin` when a post-copy has broken off (rejoin.ts).
 */
import type { Endpoint } from '../model/host.ts';
import { messageOf } from '../model/failure.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { Channel } from '../runtime/channel.ts';
import { peerMessage, type PeerMessage } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';

const connectTimeoutMs = 3000;
const replyTimeoutMs = 10_000;
const rejoinTimeoutMs = 4000;
const longestPauseMs = 2000;
/** Whoever was heard so lately will hear, too. */
const heardLatelyMs = 200;

export type RejoinReply = Pick<Extract<PeerMessage, { type: 'rejoin-reply' }>, 'result' | 'endpoint' | 'says'>;
export type GoResult = Extract<PeerMessage, { type: 'go-reply' }>['result'];

/** The ways to the target's agent; the first is preferred. */
export interface Peers {
  readonly targetPeer: Endpoint;
  readonly otherPeers?: readonly Endpoint[];
}

/** The source's end. */
export class TargetLink {
  readonly #context: AgentContext;
  readonly #peers: readonly Endpoint[];
  #failed = 0;
  readonly #migration: MigrationId;
  readonly #generation: number;
  #channel: Channel | undefined;
  #opening: Promise<void> | undefined;
  /** When the target's agent was heard last, monotonic. */
  #heardAt = -Infinity;
  #onHeard: (() => void) | undefined;
  #onReply: ((result: GoResult) => void) | undefined;
  #onRejoinReply: ((reply: RejoinReply) => void) | undefined;
  #closed = false;

  /** @param peers one or more ways to the same agent, tried in turn */
  constructor(context: AgentContext, peers: readonly Endpoint[], migration: MigrationId, generation: number) {
    this.#context = context;
    this.#peers = peers;
    this.#migration = migration;
    this.#generation = generation;
  }

  get isOpen(): boolean {
    return this.#channel?.isOpen === true;
  }

  /** Opens the channel if it is not. @returns false when the target's agent could not be reached in time */
  async ensureOpen(timeoutMs = connectTimeoutMs): Promise<boolean> {
    if (this.isOpen) return true;
    this.#opening ??= this.#openOne().finally(() => (this.#opening = undefined));
    // Another attempt may be under way, with more patience than this caller has.
    await Promise.race([this.#opening, this.#context.clock.sleep(timeoutMs)]);
    return this.isOpen;
  }

  /**
   * Does the target's agent hear us? A channel may look open for long after the network was cut.
   * @param timeoutMs for an answer; one that was given a moment ago counts
   */
  async answers(timeoutMs: number): Promise<boolean> {
    const { clock } = this.#context;
    if (!(await this.ensureOpen(timeoutMs))) return false;
    if (clock.monotonic() - this.#heardAt < heardLatelyMs) return true;
    const answer = Promise.withResolvers<boolean>();
    this.#onHeard = () => answer.resolve(true);
    void this.#channel?.closed.then(() => answer.resolve(false));
    this.greet();
    const timer = clock.setTimeout(() => answer.resolve(false), timeoutMs);
    const answered = await answer.promise;
    timer.cancel();
    return answered;
  }

  /** Asks for a sign of life, so that it is there when it is needed. */
  greet(): void {
    this.#channel?.send(this.#join);
  }

  get #join(): PeerMessage {
    return { type: 'join', migration: this.#migration, generation: this.#generation };
  }

  /** Over the way that was good last, else over each other one; all together no longer than one alone. */
  async #openOne(): Promise<void> {
    for (let tries = 0; tries < this.#peers.length && !this.isOpen && !this.#closed; tries++) {
      const peer = this.#peers[this.#failed % this.#peers.length];
      if (peer) await this.#open(peer, connectTimeoutMs / this.#peers.length);
    }
  }

  async #open(peer: Endpoint, timeoutMs: number): Promise<void> {
    try {
      const channel = await this.#context.dial(peer, { timeoutMs });
      if (this.#closed) return channel.close();
      const joined = Promise.withResolvers<void>();
      channel.onMessage((raw) => {
        const message = peerMessage.safeParse(raw);
        if (!message.success) return channel.close('a message this version does not know');
        this.#heardAt = this.#context.clock.monotonic();
        this.#onHeard?.();
        if (message.data.type === 'joined') joined.resolve();
        if (message.data.type === 'go-reply') this.#onReply?.(message.data.result);
        if (message.data.type === 'rejoin-reply') this.#onRejoinReply?.(message.data);
      });
      channel.send(this.#join);
      const answered = await Promise.race([
        joined.promise.then(() => true),
        channel.closed.then(() => false),
        this.#context.clock.sleep(timeoutMs).then(() => false),
      ]);
      if (answered && !this.#closed) this.#channel = channel;
      else channel.close(answered ? 'move is over' : 'no answer to join');
      if (!answered) this.#failed++;
      void channel.closed.then(() => {
        // Kept open through warm-up: the guest must never be paused while the target's agent is away.
        if (!this.#closed && this.#channel === channel) void this.keepOpen();
      });
    } catch (error) {
      this.#failed++;
      this.#context.log.debug({ migration: this.#migration, error }, 'the agent of the target cannot be reached');
    }
  }

  /** Until it is open, or the move is over. */
  async keepOpen(): Promise<void> {
    for (let pauseMs = 100; !this.#closed && !this.isOpen; pauseMs = Math.min(longestPauseMs, pauseMs * 2)) {
      if (await this.ensureOpen()) return;
      await this.#context.clock.sleep(pauseMs);
    }
  }

  /** Says `go` until there is an answer that settles it. @throws the signal's reason */
  async go(handedOverAt: number, signal: AbortSignal): Promise<Exclude<GoResult, 'not-ready'>> {
    for (let pauseMs = 20; ; pauseMs = Math.min(longestPauseMs, pauseMs * 2)) {
      signal.throwIfAborted();
      if (await this.ensureOpen()) {
        const reply = Promise.withResolvers<GoResult | 'no-answer'>();
        this.#onReply = reply.resolve;
        this.#channel?.send({
          type: 'go',
          migration: this.#migration,
          generation: this.#generation,
          handedOverAt,
        } satisfies PeerMessage);
        void this.#channel?.closed.then(() => reply.resolve('no-answer'));
        const giveUp = () => reply.resolve('no-answer');
        signal.addEventListener('abort', giveUp, { once: true });
        const timer = this.#context.clock.setTimeout(giveUp, replyTimeoutMs);
        const result = await reply.promise;
        timer.cancel();
        signal.removeEventListener('abort', giveUp);
        if (result !== 'no-answer' && result !== 'not-ready') return result;
      }
      await this.#context.clock.sleep(pauseMs, signal);
    }
  }

  /**
   * Asks how a broken post-copy stands over there, and with `listen` to listen for the rest of it.
   * @returns undefined when the target's agent does not answer
   */
  async rejoin(vm: VmId, listen: boolean): Promise<RejoinReply | undefined> {
    if (!(await this.ensureOpen())) return undefined;
    const channel = this.#channel;
    const reply = Promise.withResolvers<RejoinReply | undefined>();
    this.#onRejoinReply = reply.resolve;
    channel?.send({ type: 'rejoin', migration: this.#migration, vm, listen } satisfies PeerMessage);
    void channel?.closed.then(() => reply.resolve(undefined));
    const timer = this.#context.clock.setTimeout(() => reply.resolve(undefined), rejoinTimeoutMs);
    const answer = await reply.promise;
    timer.cancel();
    // A network that was cut tells nobody: what does not answer is opened anew.
    if (!answer) {
      this.#failed++;
      channel?.close('no answer');
    }
    return answer;
  }

  close(): void {
    this.#closed = true;
    this.#channel?.close('move is over');
  }
}

export interface GoReceiver {
  /** Carries `go` out, once. */
  go(migration: MigrationId, generation: number): Promise<GoResult>;
  /** Tells how a post-copy stands here; with `listen` breaks it off and listens for the rest, as often as asked. */
  rejoin(migration: MigrationId, vm: VmId, listen: boolean): Promise<RejoinReply>;
}

/** The target's end: what an agent answers on a channel that another has opened. `relay` takes over one that asks for the server. */
export function answerPeer(
  context: AgentContext,
  channel: Channel,
  receiver: GoReceiver,
  relay: (channel: Channel) => void,
): void {
  channel.onMessage((raw) => {
    const parsed = peerMessage.safeParse(raw);
    if (!parsed.success) return channel.close('a message this version does not know');
    const message = parsed.data;
    switch (message.type) {
      case 'join':
        channel.send({ type: 'joined', migration: message.migration } satisfies PeerMessage);
        return;
      case 'go':
        // An id out of a checked message: the receiver looks it up and refuses what it does not know.
        void receiver
          .go(message.migration as MigrationId, message.generation)
          .catch((error: unknown) => {
            context.log.error({ migration: message.migration, error: messageOf(error) }, '`go` was not carried out');
            return 'not-ready' as const;
          })
          .then((result) => {
            channel.send({ type: 'go-reply', migration: message.migration, result } satisfies PeerMessage);
          });
        return;
      case 'relay':
        return relay(channel);
      case 'rejoin':
        void receiver
          .rejoin(message.migration as MigrationId, message.vm as VmId, message.listen) // as above
          .catch((error: unknown) => ({ result: 'incomplete' as const, endpoint: null, says: messageOf(error) }))
          .then((reply) => {
            channel.send({ type: 'rejoin-reply', migration: message.migration, ...reply } satisfies PeerMessage);
          });
        return;
      default:
        return;
    }
  });
}
