/**
 * The source's side of one live move: starts the transfer, decides at each round's boundary (migration/steer.ts), hands
 * over, and says what it learnt. No server is asked while the guest is paused.
 *
 *   sending --(QEMU completed, journaled)--> handed-over --(release)--> none
 *   sending --(cancelled, failed: QEMU resumed the guest by itself)--> runs
 *   handed-over --(target proves that its copy is gone and never ran)--> runs
 *
 * The journal holds the job and its policy, so a restarted agent takes the move up where QEMU is by then.
 */
import type { Guest, GuestEvent, TransferNumbers, TransferOptions } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { Round } from '../model/migration.ts';
import { pageBytes } from '../model/units.ts';
import {
  dirtyBytesPerSecond,
  firstDowntimeLimitMs,
  steer,
  switchesAtOnce,
  unlimitedDowntimeMs,
} from '../migration/steer.ts';
import type { MoveJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import { TargetLink } from './handover.ts';
import type { FactBody } from './incoming.ts';

const sampleEveryMs = 500;
/** A silent cut gives no event: this long without a byte while there is something to send means that the link is gone. */
const stallMs = 10_000;
/** How long QEMU's main loop may be held up by the network while the guest is paused, beyond what the data needs. */
const hangMs = 4000;
/** A round shorter than this says little about bandwidth. */
const shortRoundMs = 100;

export function transferOptions(job: MoveJob): TransferOptions {
  const { policy } = job;
  return {
    postCopy: job.postCopy,
    parallelStreams: policy.parallelStreams,
    compression: policy.compression,
    autoConverge: policy.autoConverge,
    maxBandwidthBytesPerSecond: policy.maxBandwidthBytesPerSecond,
    downtimeLimitMs: Math.min(firstDowntimeLimitMs, policy.maxDowntimeMs),
  };
}

/** Goes on here after all. Only with the proof that the target's copy is gone and never ran. */
export async function rollBack(context: AgentContext, guests: Guests, guest: Guest, job: MoveJob): Promise<void> {
  const part = guests.part(guest.key.vm);
  if (part.kind !== 'handed-over' || part.job.migration !== job.migration) return;
  await guest.continue();
  guests.settle(guest.key.vm);
  const failure: Failure = {
    code: 'target-died',
    message: `The copy of ${job.vmName} on the target was gone before it ran; the guest went on at the source.`,
    hint: 'Look at the target host, then try again.',
  };
  context.facts.migration({ migration: job.migration, at: context.clock.now(), kind: 'source-running', failure });
}

export class Outgoing {
  readonly job: MoveJob;
  readonly vm: VmId;
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #guest: Guest;
  readonly #link: TargetLink;
  readonly #endpoint: Endpoint;
  readonly #targetPeer: Endpoint;
  readonly #stop = new AbortController();
  readonly #rounds: Round[] = [];
  #sendingSince = 0;
  #roundBegan: { round: number; at: number; sentBytes: number } | undefined;
  #downtimeLimitMs: number;
  /** The point of no return of a post-copy was journaled. */
  #switched: boolean;
  #inPostCopy = false;
  #stoppedAt: number | undefined;
  #giveUp: Failure | undefined;
  #cancelAsked = false;
  #progress = { sentBytes: -1, at: 0 };
  #last: { numbers: TransferNumbers; at: number } | undefined;
  #highestThrottle = 0;
  readonly over: Promise<void>;

  private constructor(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    job: MoveJob,
    endpoint: Endpoint,
    targetPeer: Endpoint,
    start: boolean,
  ) {
    this.#context = context;
    this.#guests = guests;
    this.#guest = guest;
    this.job = job;
    this.vm = guest.key.vm;
    this.#endpoint = endpoint;
    this.#targetPeer = targetPeer;
    const part = guests.part(this.vm);
    this.#switched = part.kind === 'sending' && part.switched;
    this.#downtimeLimitMs = transferOptions(job).downtimeLimitMs;
    this.#link = new TargetLink(context, targetPeer, job.migration, context.journal.vm(this.vm)?.generation ?? 0);
    this.over = this.#run(start).finally(() => {
      this.#stop.abort();
      this.#link.close();
    });
  }

  static begin(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    generation: number,
    job: MoveJob,
    endpoint: Endpoint,
    targetPeer: Endpoint,
  ): Outgoing {
    guests.setPart(guest.key.vm, { kind: 'sending', job, endpoint, targetPeer, switched: false }, { generation });
    return new Outgoing(context, guests, guest, job, endpoint, targetPeer, true);
  }

  /** Takes up a move that was running when the agent ended. */
  static resume(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    job: MoveJob,
    endpoint: Endpoint,
    targetPeer: Endpoint,
  ): Outgoing {
    return new Outgoing(context, guests, guest, job, endpoint, targetPeer, false);
  }

  /** Only in warm-up; afterwards it is too late and nothing happens. */
  async cancel(): Promise<void> {
    if (this.#switched || this.#stoppedAt !== undefined) return;
    this.#cancelAsked = true;
    await this.#guest.transfer.cancel().catch((error: unknown) => {
      this.#context.log.warn({ migration: this.job.migration, error: messageOf(error) }, 'cancel was not taken');
    });
  }

  async #run(start: boolean): Promise<void> {
    const unbound = this.#context.network.boundSendQueue();
    const events = this.#guest.events(this.#stop.signal)[Symbol.asyncIterator]();
    try {
      if (!(await this.#link.ensureOpen()) && start) {
        return this.#staysHere({
          code: 'target-unreachable',
          message: `The agent of the target cannot be reached at ${this.#targetPeer.address}:${this.#targetPeer.port}.`,
          hint: 'Check that agent and the network between the hosts, then try again.',
        });
      }
      if (start) await this.#guest.transfer.start(this.#endpoint, transferOptions(this.job));
      else if (await this.#catchUp()) return;
      await this.#follow(events);
    } catch (error) {
      if (!start && this.#guests.part(this.vm).kind !== 'sending') throw error;
      await this.#refused(error);
    } finally {
      unbound();
      await events.return?.();
    }
  }

  /** What QEMU did while no agent listened. @returns true when the move is over */
  async #catchUp(): Promise<boolean> {
    const part = this.#guests.part(this.vm);
    if (part.kind === 'handed-over') {
      await this.#sayGo(part.at);
      return true;
    }
    const state = await this.#guest.state();
    this.#sendingSince = this.job.startedAt;
    switch (state) {
      case 'sent':
        this.#fact({ kind: 'sending' });
        await this.#completed(this.#context.clock.now());
        return true;
      case 'running':
      case 'paused': {
        const numbers = await this.#guest.transfer.numbers();
        const words = numbers.state.kind === 'failed' ? numbers.state.words : '';
        if (state === 'paused') await this.#guest.continue();
        await this.#ended(numbers.state.kind === 'cancelled' ? null : this.#failed(words));
        return true;
      }
      case 'sending-post-copy':
      case 'broken-post-copy':
        this.#inPostCopy = true;
        this.#fact({ kind: 'sending' });
        this.#fact({ kind: 'stopped', for: 'post-copy' });
        this.#fact({ kind: 'state-transferred' });
        if (state === 'broken-post-copy') this.#fact({ kind: 'link-lost' });
        return false;
      default:
        this.#fact({ kind: 'sending' });
        return false;
    }
  }

  async #follow(events: AsyncIterator<GuestEvent>): Promise<void> {
    const { clock } = this.#context;
    let next = events.next();
    let tick = clock.sleep(sampleEveryMs).then(() => 'tick' as const);
    for (;;) {
      const first = await Promise.race([next, tick]);
      if (first === 'tick') {
        await this.#sample();
        tick = clock.sleep(sampleEveryMs).then(() => 'tick' as const);
        continue;
      }
      if (first.done) return this.#sourceGone();
      next = events.next();
      if (await this.#onEvent(first.value)) return;
    }
  }

  /** @returns true when this side of the move is over */
  async #onEvent(event: GuestEvent): Promise<boolean> {
    switch (event.kind) {
      case 'round':
        if (!this.#switched) await this.#boundary(event.round, event.at);
        return false;
      case 'stopped':
        this.#stoppedAt = event.at;
        if (!this.#switched) this.#fact({ kind: 'stopped', for: 'stop-and-copy' }, event.at);
        return false;
      case 'transfer':
        return this.#onTransfer(event.state.kind, event.at);
      case 'resumed':
      case 'powered-off':
      case 'panicked':
        return false;
    }
  }

  async #onTransfer(state: string, at: number): Promise<boolean> {
    switch (state) {
      case 'sending':
        if (this.#sendingSince === 0) {
          this.#sendingSince = at;
          this.#roundBegan ??= { round: 1, at, sentBytes: 0 };
          this.#fact({ kind: 'sending' }, at);
          this.#fact({ kind: 'measured', measures: { firstPageMs: Math.max(0, at - this.job.startedAt) } });
          if (switchesAtOnce(this.job.technique)) await this.#switchToPostCopy(1, 'post-copy was asked for');
        }
        return false;
      case 'post-copy':
        if (!this.#inPostCopy) {
          this.#inPostCopy = true;
          this.#fact({ kind: 'stopped', for: 'post-copy' }, this.#stoppedAt ?? at);
          this.#fact({ kind: 'state-transferred' }, at);
          await this.#sample();
        } else {
          this.#fact({ kind: 'link-restored' }, at);
        }
        return false;
      case 'post-copy-broken':
        this.#fact({ kind: 'link-lost' }, at);
        return false;
      case 'completed':
        await this.#completed(at);
        return true;
      case 'cancelled':
        await this.#ended(this.#giveUp ?? null);
        return true;
      case 'failed': {
        // QEMU closes the connection before it notes that it cancels, and may then take its own doing for a broken link.
        if (this.#cancelAsked && !this.#giveUp) {
          await this.#ended(null);
          return true;
        }
        const numbers = await this.#guest.transfer.numbers();
        await this.#ended(this.#giveUp ?? this.#failed(numbers.state.kind === 'failed' ? numbers.state.words : ''));
        return true;
      }
      default:
        return false;
    }
  }

  /** A round has ended and another begins: measure it, then decide. */
  async #boundary(begins: number, at: number): Promise<void> {
    const numbers = await this.#guest.transfer.numbers();
    const began = this.#roundBegan;
    this.#roundBegan = { round: begins, at, sentBytes: numbers.sentBytes };
    if (!began || begins <= 1 || began.round !== begins - 1) return;
    const durationMs = Math.max(1, at - began.at);
    const bytes = Math.max(0, numbers.sentBytes - began.sentBytes);
    const measured = (bytes * 1000) / durationMs;
    const round: Round = {
      round: began.round,
      durationMs,
      bytes,
      dirtyPages: Math.round(numbers.remainingBytes / pageBytes),
      bandwidthBytesPerSecond:
        durationMs >= shortRoundMs ? measured : (this.#rounds.at(-1)?.bandwidthBytesPerSecond ?? measured),
    };
    this.#rounds.push(round);
    this.#fact({ kind: 'round', round }, at);
    await this.#act();
  }

  async #act(): Promise<void> {
    const { transfer } = this.#guest;
    const action = steer(this.job.technique, this.job.policy, {
      rounds: this.#rounds,
      downtimeLimitMs: this.#downtimeLimitMs,
      elapsedMs: this.#context.clock.now() - this.#sendingSince,
      postCopyPossible: this.job.postCopy,
    });
    switch (action.do) {
      case 'go-on':
        return;
      case 'raise-downtime-limit':
        this.#downtimeLimitMs = action.toMs;
        return transfer.limitDowntime(action.toMs);
      case 'pause':
        this.#downtimeLimitMs = unlimitedDowntimeMs;
        return transfer.limitDowntime(unlimitedDowntimeMs);
      case 'switch-to-post-copy':
        return this.#switchToPostCopy(this.#rounds.at(-1)?.round ?? 1, action.because);
      case 'give-up':
        this.#giveUp = action.failure;
        return transfer.cancel();
    }
  }

  async #switchToPostCopy(round: number, because: string): Promise<void> {
    // Never without the target's agent there: it must see the switch and let the guest run.
    if (this.#switched || !this.#link.isOpen) return;
    const part = this.#guests.part(this.vm);
    if (part.kind !== 'sending') return;
    this.#switched = true;
    this.#guests.setPart(this.vm, { ...part, switched: true });
    this.#fact({ kind: 'switching', round, because });
    await this.#guest.transfer.switchToPostCopy();
  }

  /** Twice a second: progress for those who watch, and the only way to notice a link that died in silence. */
  async #sample(): Promise<void> {
    const { clock } = this.#context;
    const paused = this.#stoppedAt !== undefined && !this.#inPostCopy;
    let numbers: TransferNumbers;
    try {
      numbers = await this.#guest.transfer.numbers();
    } catch (error) {
      // While the guest is paused QEMU's main loop waits for the network; too long, and the connection must be cut.
      if (paused && clock.now() - (this.#stoppedAt ?? 0) > this.#allowedPauseMs()) {
        this.#giveUp = this.#linkLost('while the guest was paused');
        await this.#guest.transfer.cutConnection();
      }
      this.#context.log.debug({ migration: this.job.migration, error: messageOf(error) }, 'no sample');
      return;
    }
    const now = clock.now();
    this.#highestThrottle = Math.max(this.#highestThrottle, numbers.throttlePercent);
    if (this.#inPostCopy && numbers.state.kind === 'post-copy') this.#fact({ kind: 'pre-paging' });
    const before = this.#last;
    this.#last = { numbers, at: now };
    this.#publish(numbers, before, now);
    if (numbers.sentBytes !== this.#progress.sentBytes) this.#progress = { sentBytes: numbers.sentBytes, at: now };
    else if (now - this.#progress.at > stallMs && numbers.remainingBytes > 0) await this.#stalled(numbers);
  }

  #publish(numbers: TransferNumbers, before: { numbers: TransferNumbers; at: number } | undefined, now: number): void {
    const seconds = before ? Math.max(0.05, (now - before.at) / 1000) : 1;
    const last = this.#rounds.at(-1);
    const phase = this.#inPostCopy ? 'pre-paging' : this.#stoppedAt !== undefined ? 'stop-and-copy' : 'warming-up';
    this.#context.sample({
      migration: this.job.migration,
      at: now,
      phase,
      round: this.#roundBegan?.round ?? 1,
      totalBytes: numbers.totalBytes,
      remainingBytes: numbers.remainingBytes,
      sentBytes: numbers.sentBytes,
      bandwidthBytesPerSecond: before ? Math.max(0, (numbers.sentBytes - before.numbers.sentBytes) / seconds) : 0,
      dirtyBytesPerSecond: last && last.round > 1 ? dirtyBytesPerSecond(last) : numbers.dirtyPagesPerSecond * pageBytes,
      downtimeLimitMs: this.#downtimeLimitMs,
      faults: numbers.faults,
      throttlePercent: numbers.throttlePercent,
    });
  }

  async #stalled(numbers: TransferNumbers): Promise<void> {
    if (numbers.state.kind === 'sending' && this.#stoppedAt === undefined && !this.#giveUp) {
      this.#giveUp = this.#linkLost('in warm-up');
      await this.#guest.transfer.cancel();
    } else if (numbers.state.kind === 'post-copy') {
      this.#fact({ kind: 'link-lost' });
    }
  }

  #allowedPauseMs(): number {
    const left = this.#last?.numbers.remainingBytes ?? 0;
    const bandwidth = this.#rounds.at(-1)?.bandwidthBytesPerSecond ?? 1_000_000;
    return hangMs + (3 * left * 1000) / Math.max(1, bandwidth);
  }

  async #completed(at: number): Promise<void> {
    const { clock } = this.#context;
    if (this.#inPostCopy) {
      this.#fact({ kind: 'handed-over' }, at);
      this.#guests.setPart(this.vm, { kind: 'handed-over', job: this.job, targetPeer: this.#targetPeer, at });
      return this.#measured();
    }
    // A switch that was asked for and not needed: QEMU ended it as a stop-and-copy.
    if (this.#stoppedAt !== undefined) this.#fact({ kind: 'stopped', for: 'stop-and-copy' }, this.#stoppedAt);
    // Told to switch, QEMU may find so little left that it completes without post-copy.
    if (this.#stoppedAt !== undefined) this.#fact({ kind: 'stopped', for: 'stop-and-copy' }, this.#stoppedAt);
    // Nobody can let the guest run over there: as long as `go` was never said, running on here is safe.
    if (!this.#link.isOpen && !(await this.#link.ensureOpen(500))) {
      await this.#guest.continue();
      return this.#ended({
        code: 'target-unreachable',
        message: `The agent of the target was gone when ${this.job.vmName} was to be handed over; the guest went on here.`,
        hint: 'Check the target host, then try again.',
      });
    }
    this.#guests.setPart(this.vm, { kind: 'handed-over', job: this.job, targetPeer: this.#targetPeer, at });
    const said = this.#sayGo(at);
    this.#fact({ kind: 'handed-over' }, at);
    await this.#measured();
    await said;
    this.#context.log.info({ migration: this.job.migration, ms: Math.round(clock.now() - at) }, 'handed over');
  }

  async #sayGo(handedOverAt: number): Promise<void> {
    const result = await this.#link.go(handedOverAt, this.#stop.signal);
    if (result !== 'gone-unrun') return; // it runs there, or the server must find out
    await rollBack(this.#context, this.#guests, this.#guest, this.job);
  }

  async #measured(): Promise<void> {
    const numbers = await this.#guest.transfer.numbers();
    this.#fact({
      kind: 'measured',
      measures: {
        downtimeQemuMs: numbers.downtimeMs,
        bytes: numbers.sentBytes,
        faults: this.#inPostCopy ? numbers.faults : 0,
        throttlePercent: this.#highestThrottle,
      },
    });
  }

  /** The guest runs here and this move is over. */
  async #ended(failure: Failure | null): Promise<void> {
    const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
    if (numbers)
      this.#fact({ kind: 'measured', measures: { bytes: numbers.sentBytes, throttlePercent: this.#highestThrottle } });
    this.#staysHere(failure);
  }

  #staysHere(failure: Failure | null): void {
    this.#guests.settle(this.vm);
    this.#fact({ kind: 'source-running', failure });
  }

  /** QEMU would not even start, or a command failed half-way. */
  async #refused(error: unknown): Promise<void> {
    const state = await this.#guest.state().catch(() => undefined);
    if (state === undefined) return this.#sourceGone();
    if (state !== 'running') throw error;
    await this.#ended({
      code: 'source-refused',
      message: `QEMU on ${this.#context.hostName} would not send ${this.job.vmName}.`,
      hint: 'The detail is what QEMU said. The guest runs on.',
      detail: messageOf(error),
    });
  }

  async #sourceGone(): Promise<void> {
    const gone = await this.#guest.gone;
    const part = this.#guests.part(this.vm);
    if (part.kind !== 'sending') return; // handed over, or ended by an order
    const poweredOff = gone.how === 'powered-off';
    await this.#guests.leave(this.vm);
    this.#fact({
      kind: 'source-lost',
      failure: {
        code: poweredOff ? 'guest-powered-off' : 'source-died',
        message: poweredOff
          ? `${this.job.vmName} shut itself down while it was moved.`
          : `QEMU of ${this.job.vmName} on ${this.#context.hostName} ended while it was moved.`,
        hint: `Start it again: drover vm start ${this.job.vmName}`,
        ...(gone.words ? { detail: gone.words } : {}),
      },
    });
  }

  #failed(words: string): Failure {
    return {
      code: /failed to connect|no route|unreachable|refused/i.test(words) ? 'target-unreachable' : 'target-died',
      message: `The transfer of ${this.job.vmName} broke off${words ? `: ${words}` : ''}.`,
      hint: 'The guest runs on at the source. Look at the target host, then try again.',
    };
  }

  #linkLost(when: string): Failure {
    return {
      code: 'link-lost',
      message: `The migration link from ${this.#context.hostName} carried nothing more ${when}.`,
      hint: 'The guest runs on at the source. Check the migration network, then try again.',
    };
  }

  readonly #said = new Set<string>();
  /** Facts that hold once are said once. */
  #fact(fact: FactBody, at = this.#context.clock.now()): void {
    const repeats =
      fact.kind === 'round' || fact.kind === 'measured' || fact.kind === 'link-lost' || fact.kind === 'link-restored';
    if (!repeats && this.#said.has(fact.kind)) return;
    this.#said.add(fact.kind);
    this.#context.facts.migration({ migration: this.job.migration, at, ...fact });
  }
}
