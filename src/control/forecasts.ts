/**
 * What is known for a forecast: the guest's memory, measured by its host's agent; what the link gave; how earlier moves of the VM came
 * out. The model itself is migration/forecast.ts.
 *
 *   nothing new is known -> measure -> agent looks for a good second -> measured -> kept for ten minutes
 *
 * A measurement is waited for a moment and never needed; what was measured is in memory only, and asked for again by a new server.
 */
import type { ForecastBasis, KeptForecast, MemoryUse, Writing } from '../model/forecast.ts';
import type { HostRecord } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Migration, Policy, Technique } from '../model/migration.ts';
import { MiB } from '../model/units.ts';
import type { VmRecord } from '../model/vm.ts';
import { correctionFor, dirtiedIn, linkSpeedIn, wholeMemoryIn } from '../migration/corrections.ts';
import { corrected, forecastBy } from '../migration/forecast.ts';
import { isEnd } from '../migration/phases.ts';
import { dirtyBytesPerSecond, fitWriting } from '../migration/writing.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { FromAgent, ToAgent } from '../wire/agent.ts';
import type { Fleet } from './fleet.ts';
import type { Liveness } from './liveness.ts';

/** Longest that a move waits for a measurement. */
const measureWithinMs = 1_500;
/** What a guest did that long ago it does now. */
const freshMs = 10_000;
/** What it did or what a move showed that long ago is still better than a guess. */
const youngMs = 600_000;
/** Gigabit, where nobody says anything. */
const assumedBytesPerSecond = 125_000_000;
/** Ethernet, IP and TCP take their part of what a link carries. */
const payloadShare = 0.95;
/** A guest of whose writing nothing is known: an idle one, as in BtrPlace's model. */
const assumedWriting: Writing = { hotBytes: 5 * MiB, hotMs: 2000, coldBytesPerSecond: 0 };
const movesForWriting = 3;
/** Measurement and rounds are taken together where they say about the same; else the guest does something else now. */
const agreesWithin = 2;
/** Measurements kept; the oldest go first. */
const measuredAtMost = 10_000;
const askedAtMost = 1_000;

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly clock: Clock;
  readonly log: Log;
  /** @returns whether the host is connected */
  readonly tell: (host: HostId, message: ToAgent) => boolean;
  /** Of the migration network, as somebody said; undefined: nobody did. */
  readonly linkBytesPerSecond?: number | undefined;
}

interface Measured {
  readonly memory: MemoryUse;
  /** Monotonic. */
  readonly at: number;
}

interface Asked {
  readonly vm: VmId;
  readonly host: HostId;
  readonly answered: () => void;
}

export class Forecasts {
  readonly #parts: Parts;
  readonly #measured = new Map<VmId, Measured>();
  readonly #asked = new Map<string, Asked>();
  readonly #asking = new Map<VmId, Promise<void>>();
  #requests = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    // A guest that boots anew has other memory.
    parts.fleet.onCommit((changes) => {
      for (const change of changes)
        if (change.kind === 'vm' && change.before && change.after?.state.kind !== 'running')
          this.#measured.delete(change.before.id);
    });
  }

  /** Waits for a measurement for a moment, unless one is fresh or an earlier move said as much. Never throws. */
  async prepare(vm: VmRecord, by: 'move' | 'question'): Promise<void> {
    const known = this.#measured.get(vm.id);
    if (known && this.#ageOf(known) <= freshMs) return;
    if (by === 'move' && this.#movesTellOf(vm.id)) return;
    if (vm.state.kind !== 'running' || vm.migration !== null || this.#parts.liveness.isSilent(vm.host)) return;
    if (this.#parts.fleet.hosts.get(vm.host)?.inventory.measuresMemory !== true) return;
    const asking = this.#asking.get(vm.id) ?? this.#ask(vm).finally(() => this.#asking.delete(vm.id));
    this.#asking.set(vm.id, asking);
    await asking;
  }

  /** Do earlier moves say how it writes, alone or with a measurement that is not fresh any more? */
  #movesTellOf(vm: VmId): boolean {
    const moves = this.#youngMoves(vm);
    return (moves.length > 0 && this.#youngMeasured(vm) !== undefined) || moves.some(({ rounds }) => rounds.length > 1);
  }

  async #ask({ id, host }: VmRecord): Promise<void> {
    const { clock, tell, fleet } = this.#parts;
    const request = `memory-${fleet.term}-${++this.#requests}`;
    const { promise, resolve } = Promise.withResolvers<void>();
    // An answer that comes late still counts: whoever was asked is remembered for a while.
    const [oldest] = this.#asked.keys();
    if (this.#asked.size >= askedAtMost && oldest !== undefined) this.#asked.delete(oldest);
    this.#asked.set(request, { vm: id, host, answered: resolve });
    const timer = clock.setTimeout(resolve, measureWithinMs);
    if (tell(host, { type: 'measure', request, vm: id })) await promise;
    timer.cancel();
  }

  onMeasured(host: HostId, { request, memory, says }: Extract<FromAgent, { type: 'measured' }>): void {
    const asked = this.#asked.get(request);
    if (asked?.host !== host) return;
    this.#asked.delete(request);
    const { clock, log, fleet } = this.#parts;
    if (memory === null) log.info({ vm: asked.vm, says }, 'the memory of a guest could not be measured');
    else if (fleet.vms.get(asked.vm)?.host === host) {
      this.#measured.delete(asked.vm);
      this.#measured.set(asked.vm, { memory, at: clock.monotonic() });
      const [oldest] = this.#measured.keys();
      if (this.#measured.size > measuredAtMost && oldest !== undefined) this.#measured.delete(oldest);
    }
    asked.answered();
  }

  /** Of one move. A move never waits or fails for want of it: null when there is none. */
  of(
    vm: VmRecord,
    source: HostRecord,
    target: HostRecord,
    technique: Technique,
    policy: Partial<Policy>,
  ): KeptForecast | null {
    try {
      const basis = this.#basis(vm, source, target);
      const model = forecastBy(technique, {
        memoryBytes: (vm.running?.spec ?? vm.spec).memoryMiB * MiB,
        inUseBytes: basis.inUseBytes,
        writing: basis.writing,
        bytesPerSecond: basis.bytesPerSecond,
        policy,
        postCopy: target.inventory.postCopy.ok,
        accel: target.inventory.accel,
      });
      const others = this.#moves().filter((move) => move.vm !== vm.id);
      return corrected(model, correctionFor(model, this.#movesOf(vm.id), others), basis);
    } catch (error) {
      this.#parts.log.error({ vm: vm.name, error }, 'no forecast could be made');
      return null;
    }
  }

  #basis(vm: VmRecord, source: HostRecord, target: HostRecord): ForecastBasis {
    return { ...this.#inUse(vm), ...this.#writing(vm.id), ...this.#link(source, target) };
  }

  #inUse(vm: VmRecord): Pick<ForecastBasis, 'inUseBytes' | 'inUseFrom'> {
    const measured = this.#youngMeasured(vm.id);
    const isFresh = measured !== undefined && this.#ageOf(measured) <= freshMs;
    const [move] = this.#youngMoves(vm.id);
    const sent = move && wholeMemoryIn(move);
    if (sent !== undefined && !isFresh) return { inUseBytes: sent, inUseFrom: 'earlier-moves' };
    if (measured) return { inUseBytes: measured.memory.inUseBytes, inUseFrom: 'measured' };
    const reported = this.#parts.liveness.loadOf(vm.host)?.guests[vm.id]?.memoryResidentMiB ?? 0;
    if (reported > 0) return { inUseBytes: Math.min(reported, vm.spec.memoryMiB) * MiB, inUseFrom: 'reported' };
    return { inUseBytes: vm.spec.memoryMiB * MiB, inUseFrom: 'size' };
  }

  #writing(vm: VmId): Pick<ForecastBasis, 'writing' | 'writingFrom'> {
    const measured = this.#youngMeasured(vm);
    const sampled = measured?.memory.dirtied ?? [];
    const moves = this.#youngMoves(vm).slice(0, movesForWriting);
    const rounds = moves.flatMap(dirtiedIn);
    if (sampled.length === 0 && rounds.length === 0) return { writing: assumedWriting, writingFrom: 'assumed' };
    const isSampleNewer = measured !== undefined && this.#ageOf(measured) <= this.#ageOfMove(moves[0]);
    const writingFrom = sampled.length > 0 && (isSampleNewer || rounds.length === 0) ? 'measured' : 'earlier-moves';
    if (sampled.length === 0 || rounds.length === 0) {
      return { writing: fitWriting(sampled.length > 0 ? sampled : rounds), writingFrom };
    }
    const [now, before] = isSampleNewer ? [sampled, rounds] : [rounds, sampled];
    const times = (dirtyBytesPerSecond(fitWriting(before)) + MiB) / (dirtyBytesPerSecond(fitWriting(now)) + MiB);
    const agrees = times < agreesWithin && times > 1 / agreesWithin;
    return { writing: fitWriting(agrees ? [...sampled, ...rounds] : now), writingFrom };
  }

  #link(source: HostRecord, target: HostRecord): Pick<ForecastBasis, 'bytesPerSecond' | 'linkFrom'> {
    const { linkBytesPerSecond } = this.#parts;
    const shared = (all: number) => all / (1 + this.#movesBeside(source.id, target.id));
    const learnt = linkSpeedIn(this.#moves(), source.id, target.id);
    if (learnt !== undefined) return { bytesPerSecond: shared(learnt), linkFrom: 'earlier-moves' };
    if (linkBytesPerSecond !== undefined)
      return { bytesPerSecond: shared(linkBytesPerSecond * payloadShare), linkFrom: 'configured' };
    const [a, b] = [source.inventory.interfaceBytesPerSecond, target.inventory.interfaceBytesPerSecond];
    if (a !== undefined && b !== undefined)
      return { bytesPerSecond: shared(Math.min(a, b) * payloadShare), linkFrom: 'interface' };
    return { bytesPerSecond: shared(assumedBytesPerSecond * payloadShare), linkFrom: 'assumed' };
  }

  /** Other moves that send over the same link now. */
  #movesBeside(source: HostId, target: HostId): number {
    return this.#parts.fleet
      .unsettledMigrations()
      .filter(({ phase, technique }) => !isEnd(phase) && phase !== 'armed' && technique !== 'cold')
      .filter((move) => move.source === source || move.target === target).length;
  }

  #ageOf({ at }: Measured): number {
    return this.#parts.clock.monotonic() - at;
  }

  #youngMeasured(vm: VmId): Measured | undefined {
    const measured = this.#measured.get(vm);
    return measured && this.#ageOf(measured) <= youngMs ? measured : undefined;
  }

  /** Newest first. */
  #moves(): Migration[] {
    return [...this.#parts.fleet.migrations.values()].toReversed();
  }

  #movesOf(vm: VmId): Migration[] {
    return this.#moves().filter((move) => move.vm === vm);
  }

  /** Those that showed what the guest writes, unless that is long ago; newest first. */
  #youngMoves(vm: VmId): Migration[] {
    return this.#movesOf(vm).filter(
      (move) => this.#ageOfMove(move) <= youngMs && move.rounds.some(({ round }) => round === 1),
    );
  }

  #ageOfMove(move: Migration | undefined): number {
    return move && 'endedAt' in move ? this.#parts.clock.now() - move.endedAt : Infinity;
  }
}
