/**
 * May this VM be put on that host, and which host is best? One check and one choice, asked by creating, starting, moving,
 * recovery and evacuation alike; each refusal says what is in the way and what to do. Rules about other VMs and the score
 * are the planner's.
 *
 * Not here: moving VMs that are well where they are (distributor.ts).
 */
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { FleetSnapshot, SnapshotHost, SnapshotVm, VmLoad } from '../model/fleet-snapshot.ts';
import { choices } from '../planner/judge.ts';
import type { Homeless } from '../planner/judge.ts';
import type { Broken } from '../planner/rules.ts';
import type { Fleet } from './fleet.ts';
import type { Need } from './need.ts';
import { sleepBar } from './sleep-rules.ts';
import { snapshotOf } from './snapshot.ts';
import type { SnapshotSource } from './snapshot.ts';

export type Site = SnapshotSource;

export function freeMiB(site: { readonly fleet: Pick<Fleet, 'rooms'> }, host: HostRecord): number {
  const room = site.fleet.rooms.get(host.id);
  return room === undefined ? 0 : room.capacityMiB - roomUsedMiB(room);
}

/** Why the VM may not be put there; undefined when it may. */
export function refusalOf(site: Site, need: Need, host: HostRecord): UserError | undefined {
  const refusal = hostRefusal(site, need, host);
  if (refusal || !hasFirmRules(site, need)) return refusal;
  const [place] = rank(site, need, [host]);
  return place && ruleRefusal(need, host, place.broken);
}

/** The first host that sleeps, or is being woken, and could take the VM once it is awake; undefined: there is none. */
export function sleeperFor(site: Site, need: Need, candidates: readonly HostRecord[]): HostRecord | undefined {
  const sleepers = candidates.filter((host) => {
    const kind = site.fleet.sleeps.get(host.id)?.state.kind;
    return (kind === 'asleep' || kind === 'waking') && hostRefusal(site, need, host, true) === undefined;
  });
  return rank(site, need, sleepers, true).find(({ host, broken }) => !ruleRefusal(need, host, broken))?.host;
}

/** What the host is and has, whatever the rules of the VM. */
function hostRefusal(site: Site, need: Need, host: HostRecord, asIfAwake = false): UserError | undefined {
  const { inventory, name } = host;
  const refuse = (code: 'cordoned' | 'unreachable' | 'incompatible' | 'no-room', message: string, hint: string) =>
    new UserError(code, message, hint);
  if (host.cordoned)
    return refuse('cordoned', `${name} is cordoned.`, `Choose another host, or \`drover host uncordon ${name}\`.`);
  const sick = site.health.sicknessOf(host);
  if (sick !== null) {
    return refuse(
      'cordoned',
      `${name} is ${sick.severity}: ${sick.because}.`,
      `Choose another host; when it is well again: drover host report-well ${name}.`,
    );
  }
  const bar = asIfAwake ? undefined : sleepBar(host, site.fleet.sleeps.get(host.id));
  if (bar) return bar;
  if (!asIfAwake && site.liveness.isSilent(host.id)) {
    return refuse(
      'unreachable',
      `${name} is silent: its agent does not report.`,
      `Start the agent on ${name} again, or choose another host.`,
    );
  }
  if (host.fenced !== null) {
    return refuse(
      'unreachable',
      `${name} is fenced: it has not told yet what it runs.`,
      'Wait a moment, or choose another host.',
    );
  }
  if (!inventory.machines.includes(need.machine)) {
    return refuse(
      'incompatible',
      `${name} runs QEMU ${inventory.qemuVersion}, which does not know the machine type ${need.machine}.`,
      `Install a QEMU on ${name} that knows it, or choose another host.`,
    );
  }
  if (need.accel !== null && need.accel !== inventory.accel) {
    return refuse(
      'incompatible',
      `${need.vmName} runs under ${need.accel}, ${name} offers ${inventory.accel}.`,
      'Use --technique cold, which starts the guest anew, or choose another host.',
    );
  }
  for (const network of need.networks) {
    if (inventory.networks.includes(network)) continue;
    return refuse(
      'incompatible',
      `${name} has no network '${network}', which ${need.vmName} uses.`,
      `Give the agent of ${name} this network (--network ${network}=BRIDGE), or choose another host.`,
    );
  }
  for (const pool of need.pools) {
    const [here, there] = [inventory.poolIds?.[pool], need.poolIds[pool]];
    if (here !== undefined && there !== undefined && here !== there) {
      return refuse(
        'incompatible',
        `The pool '${pool}' of ${name} is not the one where ${need.vmName} has its disks.`,
        'Choose a host that shares that pool, or mount it there.',
      );
    }
    if (inventory.pools.includes(pool)) continue;
    return refuse(
      'incompatible',
      `${name} has no pool '${pool}', where ${need.vmName} has its disks.`,
      `Mount it there and give it to the agent (--pool ${pool}=DIR), or choose another host.`,
    );
  }
  const free = freeMiB(site, host);
  if (need.memoryMiB > free) {
    return refuse(
      'no-room',
      `${name} has no room for ${need.vmName}: it needs ${need.memoryMiB} MiB, ${Math.max(0, free)} MiB are free.`,
      'Choose another host, or stop or move a VM there first.',
    );
  }
  return undefined;
}

/** Hosts that nothing speaks against, and why the first is best. */
interface Places {
  readonly hosts: readonly [HostRecord, ...HostRecord[]];
  readonly because: string;
}

/**
 * Where the VM may be, the best first: by the planner's rules and score, with the load of hosts as it is.
 * @param alsoRefuse further reasons of the caller, asked after the ordinary ones
 * @throws UserError with each host's reason when there is none
 */
export function placesFor(
  site: Site,
  need: Need,
  candidates: readonly HostRecord[],
  alsoRefuse: (host: HostRecord) => UserError | undefined = () => undefined,
): Places {
  const refusals: Refused[] = [];
  const may = candidates.filter((host) => {
    const refusal = hostRefusal(site, need, host) ?? alsoRefuse(host);
    if (refusal) refusals.push({ host: host.name, refusal });
    return refusal === undefined;
  });
  const ranked = rank(site, need, may);
  const fitting = ranked.filter(({ host, broken }) => {
    const refusal = ruleRefusal(need, host, broken);
    if (refusal) refusals.push({ host: host.name, refusal });
    return refusal === undefined;
  });
  const [best, second, ...others] = fitting;
  if (best === undefined) throw nowhere(site, need, candidates, refusals);
  const rest = second === undefined ? [] : [second, ...others];
  return { hosts: [best.host, ...rest.map(({ host }) => host)], because: whyBest(best, second, refusals) };
}

/** Where the VM may be, in no order: cheaper where no rule is to be asked. @throws UserError as placesFor does */
export function hostsFor(
  site: Site,
  need: Need,
  candidates: readonly HostRecord[],
  alsoRefuse: (host: HostRecord) => UserError | undefined,
): readonly [HostRecord, ...HostRecord[]] {
  const refusalIn = (host: HostRecord) => hostRefusal(site, need, host) ?? alsoRefuse(host);
  const [first, ...others] = hasFirmRules(site, need) ? [] : candidates.filter((host) => !refusalIn(host));
  return first === undefined ? placesFor(site, need, candidates, alsoRefuse).hosts : [first, ...others];
}

/** The best of them. @throws UserError as placesFor does */
export function choosePlace(
  site: Site,
  need: Need,
  candidates: readonly HostRecord[],
  alsoRefuse?: (host: HostRecord) => UserError | undefined,
): HostRecord {
  return placesFor(site, need, candidates, alsoRefuse).hosts[0];
}

interface Ranked {
  readonly host: HostRecord;
  readonly score: number;
  /** What it would break: rules and mere wishes. */
  readonly broken: readonly Broken[];
}

/** Share of its CPUs that a new VM counts with, at least: else a host that is busy and roomy would get it. */
const leastUse = 0.1;

/** Rules that no choice breaks. The others are wishes of a placement: a VM that must run somewhere runs where least is amiss. */
const firm: ReadonlySet<string> = new Set(['pinned', 'apart']);

/** Can one of them speak against a host? */
function hasFirmRules({ fleet }: Site, { vmName, placing, leavesSpare }: Need): boolean {
  const rules = fleet.vmNamed(vmName)?.placing ?? placing;
  return leavesSpare === true || (rules !== undefined && (rules.pinnedTo !== null || rules.apart.length > 0));
}

function rank(site: Site, need: Need, hosts: readonly HostRecord[], asIfAwake = false): Ranked[] {
  if (hosts.length === 0) return [];
  const byName = new Map(hosts.map((host) => [host.name, host]));
  const plain = snapshotOf(site, 0);
  // Whether a live move can reach a host is asked where the technique is known.
  const opened = (host: SnapshotHost): SnapshotHost['state'] =>
    asIfAwake && host.state === 'asleep' && byName.has(host.name) ? 'up' : host.state;
  const snapshot = {
    ...plain,
    hosts: plain.hosts.map((host) => ({ ...host, state: opened(host), noLiveMoves: null })),
  };
  return choices(snapshot, asked(plain, need))
    .flatMap(({ host, score, broken }) => {
      const record = byName.get(host);
      return record === undefined ? [] : [{ host: record, score, broken }];
    })
    .toSorted((a, b) => a.broken.length - b.broken.length || a.score - b.score || (a.host.name < b.host.name ? -1 : 1));
}

/** The VM as the planner is asked about it: with what its record and the load say of it, if it has one. */
function asked(snapshot: FleetSnapshot, need: Need): Homeless {
  const known = snapshot.vms.find(({ name }) => name === need.vmName);
  const { placing } = need;
  const seen = known !== undefined && known.load.cpuCores > 0 ? known.load : undefined;
  return {
    memoryInUseMiB: need.memoryMiB,
    dirtyBytesPerSecond: 0,
    labels: {},
    pinnedTo: placing?.pinnedTo ?? null,
    apart: placing?.apart ?? [],
    together: placing?.together ?? [],
    priority: 0,
    recovery: 'manual',
    lastMovedAt: null,
    ...known,
    // What is off holds no room where it was.
    host: known?.running ? known.host : null,
    name: need.vmName,
    load: seen ?? expectedLoad(snapshot, need),
    running: true,
    moving: false,
    cannotMoveLive: null,
    cpus: need.cpus,
    memoryMiB: need.memoryMiB,
    machine: need.machine,
    cpuModel: need.cpuModel,
    accel: need.accel,
    networks: need.networks,
    pools: need.pools,
  };
}

/** Of a VM that nobody has seen run: as much of its CPUs as others use of theirs. */
function expectedLoad({ vms }: FleetSnapshot, { cpus, memoryMiB }: Need): VmLoad {
  const running = vms.filter((vm) => vm.running);
  const sum = (of: (vm: SnapshotVm) => number): number => running.reduce((all, vm) => all + of(vm), 0);
  const usual =
    sum((vm) => vm.load.cpuCores) /
    Math.max(
      1,
      sum((vm) => vm.cpus),
    );
  return {
    cpuCores: cpus * Math.max(leastUse, usual),
    memoryMiB,
    diskBytesPerSecond: 0,
    netBytesPerSecond: 0,
  };
}

function ruleRefusal(need: Need, host: HostRecord, broken: readonly Broken[]): UserError | undefined {
  const found = broken.find(({ rule }) => firm.has(rule) || (rule === 'spare' && need.leavesSpare === true));
  if (found === undefined) return undefined;
  if (found.rule === 'spare') {
    const hint = 'Add a host or stop a VM, or keep room for fewer: drover fleet set --host-failures 0.';
    return new UserError('no-room', found.says, hint);
  }
  return new UserError(
    'against-rules',
    found.says.replace(/\.?$/, `, so ${need.vmName} may not be on ${host.name}.`),
    `Choose another host, or change the rule: drover vm set ${need.vmName} --${found.rule === 'pinned' ? 'pin' : 'apart'} none.`,
  );
}

interface Refused {
  readonly host: string;
  readonly refusal: UserError;
}

/** Of reasons that differ, and of hosts that share one: somebody reads them. */
const reasonsTold = 12;

/** What speaks against each host; those against which the same speaks together. */
function reasonsOf(refusals: readonly Refused[]): string {
  const alike = Map.groupBy(refusals, ({ host, refusal }) => refusal.message.replaceAll(host, '*'));
  const told = [...alike.values()].slice(0, reasonsTold).map(([first, ...others]) => {
    if (first === undefined || others.length === 0) return first?.refusal.message ?? '';
    const names = others.slice(0, reasonsTold).map(({ host }) => host);
    const more = others.length > names.length ? ` and ${others.length - names.length} more` : '';
    return first.refusal.message.replace(/\.?$/, ` (likewise ${names.join(', ')}${more}).`);
  });
  const left = [...alike.values()].slice(reasonsTold).flat().length;
  return [...told, ...(left > 0 ? [`And ${left} other hosts cannot take it either.`] : [])].join(' ');
}

function nowhere(site: Site, need: Need, candidates: readonly HostRecord[], refused: readonly Refused[]): UserError {
  const refusals = refused.map(({ refusal }) => refusal);
  const [first] = refusals;
  const asleep = candidates.find(({ id }) => site.fleet.sleeps.get(id)?.state.kind === 'asleep');
  const same = first !== undefined && refusals.every(({ code }) => code === first.code);
  return new UserError(
    same ? first.code : 'no-room',
    refusals.length === 0
      ? `There is no other host for ${need.vmName}.`
      : `No host can take ${need.vmName}. ${reasonsOf(refused)}`,
    asleep
      ? `Wake a host that is asleep (drover host wake ${asleep.name} --wait), then try again.`
      : same
        ? first.hint
        : 'Mend one of these reasons, or add a host.',
  );
}

/** "The load is most even with it on h2 (score 0.120; on h3 0.150). h1 is cordoned." */
function whyBest(best: Ranked, second: Ranked | undefined, refusals: readonly Refused[]): string {
  const next = second === undefined ? '' : `; on ${second.host.name} ${second.score.toFixed(3)}`;
  const chosen =
    second === undefined
      ? `${best.host.name} is the only host that can take it.`
      : `The load is most even with it on ${best.host.name} (score ${best.score.toFixed(3)}${next}).`;
  const amiss = best.broken.map(({ says }) => says);
  const not = refusals.slice(0, 3).map(({ refusal }) => refusal.message);
  return [chosen, ...amiss, ...not].join(' ');
}
