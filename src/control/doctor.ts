/**
 * What is wrong with the fleet by its records and by what hosts report, and how to mend it. Only looks.
 *
 * Not here: what is wrong with one host from inside (its agent says so in its inventory).
 */
import { roomUsedMiB } from '../model/host.ts';
import type { HostRecord } from '../model/host.ts';
import { formatMs } from '../model/units.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import { isEnd } from '../migration/phases.ts';
import { outstanding } from '../migration/step.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Finding } from '../wire/endpoints.ts';
import type { Guests } from './guests.ts';
import { holdsRoom } from './rooms.ts';
import type { Seen } from './views.ts';

/** A move that is open for longer deserves a look, whatever it waits for. */
const longMoveMs = 30 * 60_000;
/** Cleaning up takes moments where hosts answer. */
const longCleanupMs = 60_000;
const clockWarningMs = 1_000;

interface Parts extends Seen {
  readonly guests: Guests;
  readonly clock: Clock;
}

export function checkFleet(parts: Parts): Finding[] {
  const { fleet } = parts;
  const findings = [
    ...[...fleet.hosts.values()].flatMap((host) => checkHost(parts, host)),
    ...checkVms(parts),
    ...checkMigrations(parts),
    ...checkRooms(parts),
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

function checkHost({ liveness, guests }: Parts, host: HostRecord): Finding[] {
  const { name, inventory } = host;
  const findings: Finding[] = [];
  const silent = liveness.isSilent(host.id);
  if (silent) {
    findings.push(
      error(
        `host ${name}: reports`,
        `${name} is silent`,
        `Start its agent (systemctl start drover-agent); its guests run on meanwhile.`,
      ),
    );
  } else {
    findings.push({ severity: 'ok', about: `host ${name}: reports`, says: `session ${host.session}`, mend: null });
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

function checkVms({ fleet }: Parts): Finding[] {
  return [...fleet.vms.values()].flatMap((vm) => {
    const findings: Finding[] = [];
    if (vm.state.kind === 'crashed') {
      findings.push(error(`vm ${vm.name}`, `crashed: ${vm.state.message}`, `drover vm start ${vm.name}`));
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
