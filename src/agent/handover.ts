/**
 * The two-step handover between the agents of a move, on a direct channel that is open before the guest is paused.
 *
 *   source                                       target
 *   join ------------------------------------->  joined              (before the first page)
 *   QEMU completed; journal 'handed-over'
 *   go --------------------------------------->  journal 'continuing'; cont
 *                                    <---------  continued
 *
 * `go` is repeated until it is answered: the target does once what it was told any number of times.
 */
import type { Endpoint } from '../model/host.ts';
import { messageOf } from '../model/failure.ts';
import type { MigrationId } from '../model/ids.ts';
import { listenChannels, openChannel, type Channel, type Listener } from '../runtime/channel.ts';
import { peerMessage, type PeerMessage } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';

const connectTimeoutMs = 3000;
const replyTimeoutMs = 10_000;
const longestPauseMs = 2000;

export type GoResult = Extract<PeerMessage, { type: 'go-reply' }>['result'];

/** The source's end. */
export class TargetLink {
  readonly #context: AgentContext;
  readonly #peer: Endpoint;
  readonly #migration: MigrationId;
  readonly #generation: number;
  #channel: Channel | undefined;
  #opening: Promise<void> | undefined;
  #onReply: ((result: GoResult) => void) | undefined;
  #closed = false;

  constructor(context: AgentContext, peer: Endpoint, migration: MigrationId, generation: number) {
    this.#context = context;
    this.#peer = peer;
    this.#migration = migration;
    this.#generation = generation;
  }

  get isOpen(): boolean {
    return this.#channel?.isOpen === true;
  }

  /** Opens the channel if it is not. @returns false when the target's agent could not be reached in time */
  async ensureOpen(timeoutMs = connectTimeoutMs): Promise<boolean> {
    if (this.isOpen) return true;
    this.#opening ??= this.#open(connectTimeoutMs).finally(() => (this.#opening = undefined));
    // Another attempt may be under way, with more patience than this caller has.
    await Promise.race([this.#opening, this.#context.clock.sleep(timeoutMs)]);
    return this.isOpen;
  }

  async #open(timeoutMs: number): Promise<void> {
    try {
      const channel = await openChannel({ ...this.#peer, key: this.#context.fleetKey, timeoutMs });
      if (this.#closed) return channel.close();
      const joined = Promise.withResolvers<void>();
      channel.onMessage((raw) => {
        const message = peerMessage.safeParse(raw);
        if (!message.success) return channel.close('a message this version does not know');
        if (message.data.type === 'joined') joined.resolve();
        if (message.data.type === 'go-reply') this.#onReply?.(message.data.result);
      });
      channel.send({ type: 'join', migration: this.#migration, generation: this.#generation } satisfies PeerMessage);
      const answered = await Promise.race([
        joined.promise.then(() => true),
        channel.closed.then(() => false),
        this.#context.clock.sleep(timeoutMs).then(() => false),
      ]);
      if (answered && !this.#closed) this.#channel = channel;
      else channel.close(answered ? 'move is over' : 'no answer to join');
      void channel.closed.then(() => {
        // Kept open through warm-up: the guest must never be paused while the target's agent is away.
        if (!this.#closed && this.#channel === channel) void this.#reopen();
      });
    } catch (error) {
      this.#context.log.debug({ migration: this.#migration, error }, 'the agent of the target cannot be reached');
    }
  }

  async #reopen(): Promise<void> {
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

  close(): void {
    this.#closed = true;
    this.#channel?.close('move is over');
  }
}

export interface GoReceiver {
  /** Carries `go` out, once. */
  go(migration: MigrationId, generation: number): Promise<GoResult>;
}

/** The target's end: listens for the agents of sources. */
export async function listenForPeers(context: AgentContext, listen: Endpoint, receiver: GoReceiver): Promise<Listener> {
  return listenChannels({
    ...listen,
    key: context.fleetKey,
    onChannel(channel) {
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
                context.log.error(
                  { migration: message.migration, error: messageOf(error) },
                  '`go` was not carried out',
                );
                return 'not-ready' as const;
              })
              .then((result) => {
                channel.send({ type: 'go-reply', migration: message.migration, result } satisfies PeerMessage);
              });
            return;
          case 'joined':
          case 'go-reply':
            return;
        }
      });
    },
  });
}
