/**
 * What is wrong with the fleet by its records and by what hosts report, and how to mend it. Only looks.
 *
 * Not here: what is wrong with one host from inside (its agent says so in its inventory).
 */
import { roomUsedMiB } from '../model/host.ts';
import type { HostRecord } from '../model/host.ts';
import { formatMs } from '../model/units.ts';
import { missingSpareMiB } from '../planner/judge.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import { isEnd } from '../migration/phases.ts';
import { outstanding } from '../migration/step.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Finding } from '../wire/endpoints.ts';
import type { Distributor } from './distributor.ts';
import { latestDrain } from './drain-progress.ts';
import type { Evacuation } from './evacuation.ts';
import type { Guests } from './guests.ts';
import type { Held } from './held.ts';
import type { Recovery } from './recovery.ts';
import { holdsRoom } from './rooms.ts';
import { sleepsOnPurpose, wordsOfKind } from './sleep-rules.ts';
import type { Seen } from './views.ts';

/** A move that is open for longer deserves a look, whatever it waits for. */
const longMoveMs = 30 * 60_000;
/** Cleaning up takes moments where hosts answer. */
const longCleanupMs = 60_000;
const clockWarningMs = 1_000;
/** A host that stays in maintenance for longer may have been forgotten. */
const forgottenMs = 24 * 3_600_000;

interface Parts extends Seen {
  readonly guests: Guests;
  readonly held: Held;
  readonly recovery: Recovery;
  readonly evacuation: Evacuation;
  readonly distributor: Pick<Distributor, 'snapshot'>;
  readonly clock: Clock;
}

/** @param power what was found of power controllers, which take their time to answer */
export function checkFleet(parts: Parts, power: readonly Finding[] = []): Finding[] {
  const { fleet } = parts;
  const findings = [
    ...checkHeld(parts),
    ...[...fleet.hosts.values()].flatMap((host) => [...checkHost(parts, host), ...checkProof(parts, host)]),
    ...power,
    ...checkVms(parts),
    ...checkDrains(parts),
    ...checkMigrations(parts),
    ...checkRooms(parts),
    ...checkSpare(parts),
  ];
  if (fleet.hosts.size === 0) {
    findings.push(
      warning('fleet', 'no host has ever connected', 'Start an agent: drover agent --name h1 --server ADDR:7071.'),
    );
  }
  const bad = findings.some(({ severity }) => severity !== 'ok');
  const says = `${fleet.hosts.size} hosts, ${fleet.vms.size} VMs, ${fleet.migrations.size} migrations: nothing is wrong`;
  return bad ? findings : [...findings, { severity: 'ok', about: 'fleet', says, mend: null }];
}

/** Would the VMs of hosts that die find room on those that are awake? */
function checkSpare({ distributor, fleet }: Parts): Finding[] {
  const { hostFailuresTolerated: hosts } = fleet.balance;
  if (hosts === 0 || fleet.hosts.size === 0) return [];
  const missing = missingSpareMiB(distributor.snapshot());
  if (missing === 0) return [];
  const dead = hosts === 1 ? 'a host dies' : `${hosts} hosts die`;
  const asleep = [...fleet.sleeps.values()]
    .filter(({ state }) => state.kind === 'asleep')
    .map(({ host }) => fleet.hostName(host));
  const says = `if ${dead} VMs of ${Math.ceil(missing)} MiB may find no room on hosts that are awake`;
  const mend =
    asleep.length > 0
      ? `Wake ${asleep[0]} (drover host wake ${asleep[0]}), or wait with them until it is awake then.`
      : 'Add a host, stop VMs or spread them, or keep room for fewer: drover fleet set --host-failures 0.';
  return [warning('fleet: room for lost hosts', says, mend)];
}

function checkHeld({ fleet, held }: Parts): Finding[] {
  const { restored } = fleet;
  if (!held.isHeld || restored === undefined) return [];
  const names = held.missing().map(({ name }) => name);
  const says = `older than the fleet (${restored.because}): nothing is ordered until ${names.join(', ')} reported`;
  const mend = `Start the agents there; of a host that is off: drover host fenced ${names[0] ?? 'HOST'} --because "...".`;
  return [error('records', says, mend)];
}

/** What could prove this host dead, said before it dies. */
function checkProof({ fleet, liveness, recovery }: Parts, host: HostRecord): Finding[] {
  const { name } = host;
  const about = `host ${name}: recovery`;
  if (host.fenced) {
    const says = `fenced (${host.fenced.proof}): ${host.fenced.because}`;
    return [warning(about, says, `Mend ${name} and start its agent, or forget it: drover host remove ${name}.`)];
  }
  if (sleepsOnPurpose({ fleet, liveness }, host)) return [];
  if (liveness.isSilent(host.id)) {
    const verdict = recovery.verdictOn(host.id);
    if (verdict?.do !== 'wait') return [];
    const mend = verdict.person
      ? `When you know that ${name} is off: drover host fenced ${name} --because "how you know".`
      : 'Wait: this changes by itself.';
    return [(verdict.person ? error : warning)(about, verdict.because, mend)];
  }
  const waits = [...fleet.vms.values()].some((vm) => vm.host === host.id && vm.recovery === 'restart');
  const guards = recovery.guardsOf(host.id);
  if (fleet.hosts.size < 2 || !waits || guards === undefined) return [];
  if (guards.length === 0 && host.power === null) {
    const says = `if ${name} dies nothing can prove it: its VMs would wait for a person`;
    return [warning(about, says, `Start a guard there (drover guard), or give it a power controller.`)];
  }
  if (guards.length === 0) {
    const says = `${name} keeps no lease: where its agent alone dies, it is switched off after 30 s, guests and all`;
    return [warning(about, says, `Start a guard there (drover guard).`)];
  }
  if (host.power === null && !recovery.trustsGuards && guards.some(({ watchdog }) => !watchdog)) {
    const says = `the guard of ${name} has no watchdog and no power controller stands in: its VMs would wait for a person`;
    const mend = 'Give the guard a watchdog, the host a power controller, or start the server with --trust-guard.';
    return [warning(about, says, mend)];
  }
  return [];
}

function checkHost(parts: Parts, host: HostRecord): Finding[] {
  const { liveness, guests, health, evacuation } = parts;
  const { name, inventory } = host;
  const findings: Finding[] = [];
  const silent = liveness.isSilent(host.id);
  if (silent && sleepsOnPurpose(parts, host)) {
    findings.push(...checkSleep(parts, host));
  } else if (silent) {
    findings.push(
      error(
        `host ${name}: reports`,
        `${name} is silent`,
        'Start its agent (systemctl start drover-agent). Where only the agent is down its guests run on meanwhile.',
      ),
    );
  } else {
    findings.push({ severity: 'ok', about: `host ${name}: reports`, says: `session ${host.session}`, mend: null });
    findings.push(...checkSleep(parts, host));
  }
  const sick = health.sicknessOf(host);
  if (sick !== null) {
    const says = `${sick.severity}: ${sick.because} (${sick.by})`;
    const mend = `Its VMs ${sick.severity === 'failing' ? 'leave it' : 'are held ready to leave'}; mend it, then: drover host report-well ${name}`;
    findings.push(warning(`host ${name}: health`, says, mend));
    for (const { vm, says: why } of evacuation.stuckOn(host.id))
      findings.push(error(`vm ${vm.name}`, `cannot leave ${name}: ${why}`, 'Mend that, or shut it down in good time.'));
  }
  if (!inventory.liveMigration.ok) {
    const mend = 'Install QEMU 10 or newer there, or use a machine with KVM; until then only cold moves are possible.';
    findings.push(warning(`host ${name}: live migration`, inventory.liveMigration.reason, mend));
  }
  if (!inventory.postCopy.ok) {
    const mend =
      'Allow userfaultfd there (sysctl vm.unprivileged_userfaultfd=1, or run the agent as root), then restart the agent.';
    findings.push(warning(`host ${name}: post-copy`, inventory.postCopy.reason, mend));
  }
  const offset = liveness.offsetMs(host.id);
  if (Math.abs(offset) > clockWarningMs) {
    const says = `the clock of ${name} is ${formatMs(Math.abs(offset))} ${offset > 0 ? 'ahead' : 'behind'}`;
    findings.push(warning(`host ${name}: clock`, says, 'Keep the clocks together with chrony or systemd-timesyncd.'));
  }
  for (const unknown of guests.unknownGuests().filter((guest) => guest.host === host.id)) {
    const mend = `Look at it on ${name}; it is never stopped by itself.`;
    findings.push(error(`host ${name}: guest ${unknown.vm}`, unknown.says, mend));
  }
  return findings;
}

/** May it sleep when nothing needs it, and does it come back? */
function checkSleep({ fleet, sleep, clock }: Parts, host: HostRecord): Finding[] {
  const record = fleet.sleeps.get(host.id);
  if (!record?.way) return [];
  const about = `host ${host.name}: sleep`;
  const { state, proof } = record;
  if (state.kind === 'wake-failed') {
    return [
      error(
        about,
        state.says,
        `Switch it on by hand and start its agent, or try again: drover host wake ${host.name}.`,
      ),
    ];
  }
  if (state.kind !== 'awake')
    return [{ severity: 'ok', about, says: `${host.name} is ${wordsOfKind[state.kind]}`, mend: null }];
  const ranOut = proof === null || clock.now() - proof.at > sleep.options.proofAgeMs;
  if (!ranOut) return [];
  const says = `it is not proven, or not any more, that ${host.name} can be woken: it stays awake`;
  return [warning(about, says, `When it has no guests: drover host drill ${host.name}.`)];
}

function checkVms({ fleet, liveness }: Parts): Finding[] {
  return [...fleet.vms.values()].flatMap((vm) => {
    const findings: Finding[] = [];
    if (vm.state.kind === 'crashed') {
      findings.push(error(`vm ${vm.name}`, `crashed: ${vm.state.message}`, `drover vm start ${vm.name}`));
    }
    if (vm.state.kind === 'waiting') {
      const mend = `Make room, or mend what is in the way; it starts by itself. To leave it off: drover vm stop ${vm.name}.`;
      findings.push(error(`vm ${vm.name}`, `should run and waits: ${vm.state.because}`, mend));
    }
    if (vm.state.kind === 'deleting' && liveness.isSilent(vm.host)) {
      const home = fleet.hostName(vm.host);
      const mend = `Start the agent on ${home}. If it never comes back: drover host remove ${home}.`;
      findings.push(warning(`vm ${vm.name}`, `is deleted when ${home} is back: its disks are there`, mend));
    }
    const migration = vm.migration === null ? undefined : fleet.migrations.get(vm.migration);
    if (vm.migration !== null && (migration === undefined || isEnd(migration.phase))) {
      findings.push(
        error(
          `vm ${vm.name}`,
          `says it moves by ${vm.migration}, which is not open`,
          'This is a bug: please report it.',
        ),
      );
    }
    if (!fleet.hosts.has(vm.host)) {
      findings.push(
        error(`vm ${vm.name}`, 'belongs to a host that is not known', `drover vm start ${vm.name} --host HOST`),
      );
    }
    return findings;
  });
}

/** Drains that do not go on, and hosts that were emptied and forgotten. */
function checkDrains({ fleet, clock }: Parts): Finding[] {
  return [...fleet.hosts.values()].flatMap((host) => {
    const drain = latestDrain(fleet, host.id);
    const about = `host ${host.name}: drain`;
    if (drain?.state.kind === 'draining' && drain.blocked !== null) {
      const { since, says, next } = drain.blocked;
      const cancel = `To give up: drover host drain ${host.name} --cancel.`;
      return [error(about, `does not go on for ${formatMs(clock.now() - since)}: ${says}`, `${next} ${cancel}`)];
    }
    if (drain?.state.kind === 'draining' || drain?.state.kind === 'returning') {
      const what = drain.state.kind === 'draining' ? 'leave' : 'come back to';
      return drain.vms.flatMap(({ vmName, stuck }) =>
        stuck === null || stuck.kind === 'busy'
          ? []
          : [warning(`vm ${vmName}`, `cannot ${what} ${host.name} yet: ${stuck.says}`, stuck.next)],
      );
    }
    if (drain?.state.kind === 'drained' && clock.now() - drain.state.at > forgottenMs) {
      const says = `${host.name} has been empty for ${formatMs(clock.now() - drain.state.at)}`;
      return [warning(about, says, `When it is well again: drover host undrain ${host.name}.`)];
    }
    return [];
  });
}

function checkMigrations({ fleet, clock }: Parts): Finding[] {
  const findings: Finding[] = [];
  const now = clock.now();
  for (const migration of fleet.migrations.values()) {
    for (const broken of brokenInvariants(migration)) {
      findings.push(error(`migration ${migration.id}`, broken, 'This is a bug: please report it with the migration.'));
    }
  }
  for (const migration of fleet.unsettledMigrations()) {
    const about = `migration ${migration.id}`;
    if (!isEnd(migration.phase)) {
      const age = now - migration.startedAt;
      if (age > longMoveMs) {
        const says = `${migration.vmName} has been on the move for ${formatMs(age)} (${migration.phase})`;
        findings.push(warning(about, says, `drover migration show ${migration.id}; cancel it if it leads nowhere.`));
      }
    } else if (now - (migration.history.at(-1)?.at ?? now) > longCleanupMs) {
      const where = [
        ...new Set(
          outstanding(migration).map(({ side }) =>
            fleet.hostName(side === 'source' ? migration.source : migration.target),
          ),
        ),
      ].join(' and ');
      findings.push(
        warning(about, `${where} has not cleared away what is left of it`, `Start the agent on ${where} again.`),
      );
    }
  }
  return findings;
}

/** Rooms against what holds them: VMs that run or will, open moves, and what they have left behind. */
function checkRooms({ fleet }: Parts): Finding[] {
  const findings: Finding[] = [];
  const bug = 'This is a bug: please report it with the output of `drover host show`.';
  const unsettled = fleet.unsettledMigrations();
  for (const room of fleet.rooms.values()) {
    const about = `host ${fleet.hostName(room.host)}: room`;
    for (const id of Object.keys(room.reservationsMiB)) {
      const owner = unsettled.find((migration) => migration.id === id);
      if (owner === undefined) findings.push(error(about, `room is reserved for ${id}, which needs none`, bug));
    }
    for (const [id, held] of Object.entries(room.guestsMiB)) {
      const vm = [...fleet.vms.values()].find((other) => other.id === id);
      const lives = vm?.host === room.host && holdsRoom(vm);
      const leaves = unsettled.some((migration) => migration.vm === id && migration.source === room.host);
      if (!lives && !leaves) findings.push(error(about, `room is held by ${vm?.name ?? id}, which is not there`, bug));
      if (lives && held !== vm.spec.memoryMiB) {
        findings.push(error(about, `${vm.name} holds ${held} MiB and needs ${vm.spec.memoryMiB} MiB`, bug));
      }
    }
    for (const vm of fleet.vms.values()) {
      if (vm.host === room.host && holdsRoom(vm) && room.guestsMiB[vm.id] === undefined) {
        findings.push(error(about, `${vm.name} runs there without room of its own`, bug));
      }
    }
    if (roomUsedMiB(room) > room.capacityMiB) {
      const says = `${roomUsedMiB(room)} MiB are promised, ${room.capacityMiB} MiB are there`;
      findings.push(warning(about, says, 'Its memory shrank, or guests were found there: move some of them away.'));
    }
  }
  return findings;
}

function warning(about: string, says: string, mend: string): Finding {
  return { severity: 'warning', about, says, mend };
}

function error(about: string, says: string, mend: string): Finding {
  return { severity: 'error', about, says, mend };
}
