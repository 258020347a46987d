/**
 * What people ask of drains: begin, cancel, bring back. Each is one commit; what is then due follows from the record.
 *
 * Not here: how it goes on (drain-progress.ts).
 */
import type { DrainEstimate, DrainRecord, DrainState } from '../model/drain.ts';
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { newId } from '../model/ids.ts';
import type { Random } from '../runtime/random.ts';
import type { MovesPlan } from './drain-plan.ts';
import { DrainProgress, entryOf, latestDrain } from './drain-progress.ts';
import type { DrainParts } from './drain-progress.ts';
import type { Draft } from './fleet.ts';
import type { Health } from './health.ts';
import { cancelIn } from './migrations.ts';
import { doneBefore, noteRequest, type RequestKey } from './requests.ts';
import { holdsRoom } from './rooms.ts';
import { sleepsOnPurpose } from './sleep-rules.ts';

export const defaultMovesAtOnce = 2;

export interface DrainAsked {
  readonly because: string | null;
  readonly movesAtOnce: number | null;
  readonly allowCold: boolean | null;
  readonly dryRun: boolean;
}

interface Parts extends DrainParts {
  readonly random: Random;
  readonly health: Health;
}

export class Drains {
  readonly progress: DrainProgress;
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.progress = new DrainProgress(parts);
  }

  /**
   * Cordons the host and lets its VMs leave; a drain that is under way is joined, with what is asked now.
   * @returns with `dryRun` what it would be, its plan beside it
   * @throws UserError not-found, unreachable
   */
  async begin(
    ref: string,
    asked: DrainAsked,
    by: string,
    request: RequestKey | null = null,
  ): Promise<{ drain: DrainRecord; plan: MovesPlan }> {
    const { fleet, clock, random } = this.#parts;
    return fleet.change((draft) => {
      const done = doneBefore(fleet, request);
      if (done !== undefined) {
        const drain = fleet.findDrain(done);
        return { drain, plan: this.progress.plan(drain) };
      }
      const host = fleet.findHost(ref);
      // Nothing has to leave one that sleeps.
      if (!sleepsOnPurpose(this.#parts, host)) this.#refuseSilent(host);
      const at = clock.now();
      const latest = latestDrain(fleet, host.id);
      if (latest !== undefined && this.#stillHolds(latest)) {
        const movesAtOnce = asked.movesAtOnce ?? latest.movesAtOnce;
        const joined = { ...latest, movesAtOnce, allowCold: asked.allowCold ?? latest.allowCold, blocked: null };
        if (!asked.dryRun) {
          draft.putDrain(joined);
          noteRequest(draft, request, joined.id, at);
        }
        return { drain: joined, plan: this.progress.plan(joined) };
      }
      const before = latest?.state.kind === 'drained' || latest?.state.kind === 'returning' ? latest : undefined;
      const here = [...fleet.vms.values()].filter((vm) => vm.host === host.id).map(entryOf);
      // What an earlier drain took away comes back with this one.
      const away = (before?.vms ?? []).filter(
        ({ vm, left, backAt, stays }) =>
          left !== null && backAt === null && stays === null && !here.some((entry) => entry.vm === vm),
      );
      const draining: DrainRecord = {
        schema: 1,
        id: newId('drain', at, random.bytes(8)),
        host: host.id,
        hostName: host.name,
        by,
        because: asked.because ?? 'maintenance',
        startedAt: at,
        movesAtOnce: asked.movesAtOnce ?? defaultMovesAtOnce,
        allowCold: asked.allowCold ?? false,
        setCordon: !host.cordoned || before?.setCordon === true,
        state: { kind: 'draining' },
        vms: [...here, ...away.map((entry) => ({ ...entry, open: null }))],
        estimate: { moves: 0, bytes: 0, ms: 0 },
        returnEstimate: null,
        emptyAt: null,
        blocked: null,
      };
      const plan = this.progress.plan(draining);
      const vms = draining.vms.map((entry) => {
        const cannot = plan.cannot.find(({ vm }) => vm.id === entry.vm);
        if (cannot === undefined) return entry;
        return { ...entry, stuck: { kind: 'refused' as const, since: at, says: cannot.says, next: cannot.next } };
      });
      const drain: DrainRecord = { ...draining, vms, estimate: estimateOf(plan) };
      if (asked.dryRun) return { drain, plan };
      if (before !== undefined) this.#end(draft, before, { kind: 'cancelled', at, by, because: 'drained again' });
      draft.putDrain(drain);
      noteRequest(draft, request, drain.id, at);
      if (!host.cordoned) draft.putHost({ ...host, cordoned: true });
      return { drain, plan };
    });
  }

  /** Open moves are cancelled where they can be; what has left stays where it is. @throws UserError not-found, wrong-state */
  async cancel(ref: string, by: string): Promise<DrainRecord> {
    const { fleet, clock } = this.#parts;
    return fleet.change((draft) => {
      const host = fleet.findHost(ref);
      const drain = latestDrain(fleet, host.id);
      const at = clock.now();
      if (drain?.state.kind === 'draining') {
        if (drain.setCordon) draft.putHost({ ...host, cordoned: false });
        return this.#end(draft, drain, { kind: 'cancelled', at, by, because: 'asked for' });
      }
      if (drain?.state.kind === 'returning') {
        const vms = drain.vms.map((entry) =>
          entry.left === null || entry.backAt !== null
            ? entry
            : { ...entry, stays: entry.stays ?? { says: 'the undrain was cancelled', gaveUp: false } },
        );
        return this.#end(draft, { ...drain, vms }, { kind: 'undrained', at });
      }
      const hint =
        drain?.state.kind === 'drained'
          ? `It is drained already. To bring its VMs back: drover host undrain ${host.name}.`
          : `To drain it: drover host drain ${host.name}.`;
      throw new UserError('wrong-state', `${host.name} is not being drained.`, hint);
    });
  }

  /**
   * Uncordons the host and brings back what a drain took away; one that sleeps is woken first.
   * @throws UserError not-found, unreachable, cordoned when the host is not well, wrong-state when there is nothing to undo
   */
  async undrain(
    ref: string,
    asked: { readonly movesAtOnce: number | null; readonly dryRun: boolean },
    by: string,
  ): Promise<{ drain: DrainRecord; plan: MovesPlan }> {
    const { fleet, clock } = this.#parts;
    return fleet.change((draft) => {
      const host = fleet.findHost(ref);
      const latest = latestDrain(fleet, host.id);
      if (latest === undefined || latest.state.kind === 'undrained') {
        throw new UserError(
          'wrong-state',
          latest === undefined ? `${host.name} was never drained.` : `${host.name} was undrained already.`,
          host.cordoned
            ? `To let VMs be placed there: drover host uncordon ${host.name}.`
            : 'There is nothing to bring back.',
        );
      }
      // One that sleeps is woken for it (sleep.ts).
      if (!sleepsOnPurpose(this.#parts, host)) this.#refuseSilent(host);
      this.#refuseSick(host);
      const at = clock.now();
      const movesAtOnce = asked.movesAtOnce ?? latest.movesAtOnce;
      if (latest.state.kind === 'returning') {
        const joined = { ...latest, movesAtOnce };
        if (!asked.dryRun) draft.putDrain(joined);
        return { drain: joined, plan: this.progress.plan(joined) };
      }
      const vms = latest.vms.map((entry) => ({ ...entry, failures: 0, notBefore: 0, stuck: null, stays: null }));
      const returning: DrainRecord = {
        ...latest,
        vms,
        movesAtOnce,
        blocked: null,
        state: { kind: 'returning', since: at, by },
      };
      // Uncordoned in the plan, as it will be when the moves begin.
      const uncordoned = { ...host, cordoned: false };
      const plan = this.progress.plan(returning, uncordoned);
      const drain = { ...returning, returnEstimate: estimateOf(plan) };
      if (asked.dryRun) return { drain, plan };
      if (host.cordoned) draft.putHost(uncordoned);
      return { drain: this.#end(draft, drain, drain.state), plan };
    });
  }

  /** A host that is uncordoned by hand is drained no more. Called in the commit that uncordons it. */
  uncordoned(draft: Draft, host: HostRecord, by: string): void {
    const drain = latestDrain(this.#parts.fleet, host.id);
    if (drain?.state.kind !== 'draining' && drain?.state.kind !== 'drained') return;
    const at = this.#parts.clock.now();
    this.#end(draft, drain, { kind: 'cancelled', at, by, because: 'the host was uncordoned' });
  }

  /** Writes a state in which the moves that were begun before have no purpose any more. */
  #end(draft: Draft, drain: DrainRecord, state: DrainState): DrainRecord {
    const at = this.#parts.clock.now();
    for (const { open } of drain.vms) {
      const migration = open === null ? undefined : draft.migration(open);
      if (migration !== undefined) cancelIn(draft, migration, at);
    }
    const ended: DrainRecord = { ...drain, state, blocked: null };
    draft.putDrain(ended);
    return ended;
  }

  /** Under way, or done and nothing has come since. */
  #stillHolds(drain: DrainRecord): boolean {
    if (drain.state.kind === 'draining') return true;
    const { fleet } = this.#parts;
    const isEmpty = ![...fleet.vms.values()].some((vm) => vm.host === drain.host && holdsRoom(vm));
    return drain.state.kind === 'drained' && isEmpty && fleet.hosts.get(drain.host)?.cordoned === true;
  }

  #refuseSilent(host: HostRecord): void {
    if (!this.#parts.liveness.isSilent(host.id) || host.fenced !== null) return;
    throw new UserError(
      'unreachable',
      `${host.name} is silent: its agent does not report, so nothing can leave it or come to it.`,
      `Start its agent again. If it is dead its VMs are recovered instead: drover doctor.`,
    );
  }

  #refuseSick(host: HostRecord): void {
    const sick = this.#parts.health.sicknessOf(host);
    if (sick === null && host.fenced === null) return;
    throw new UserError(
      'cordoned',
      sick === null
        ? `${host.name} is fenced: it has not told yet what it runs.`
        : `${host.name} is ${sick.severity}: ${sick.because}.`,
      sick === null ? 'Start its agent.' : `Mend it; when it is well again: drover host report-well ${host.name}.`,
    );
  }
}

function estimateOf({ moves, bytes, ms }: MovesPlan): DrainEstimate {
  return { moves: moves.length, bytes: Math.round(bytes), ms };
}
