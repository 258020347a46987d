/**
 * What stands in the way of a host's sleep: each refusal with what to do. Asked in the commit that decides it, and again until the
 * host's agent has consented.
 *
 * Not here: what happens when nothing does (sleep-step.ts), and which host should sleep (planner/power-plan.ts).
 */
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { isDown } from '../model/sleep.ts';
import type { SleepRecord } from '../model/sleep.ts';
import { formatMs } from '../model/units.ts';
import type { Fleet } from './fleet.ts';
import type { Liveness } from './liveness.ts';
import type { SleepOptions } from './sleep-step.ts';

export interface Bedroom {
  readonly fleet: Pick<Fleet, 'hosts' | 'rooms' | 'sleeps' | 'vms' | 'unsettledMigrations'>;
  readonly liveness: Pick<Liveness, 'isSilent'>;
}

const namesShown = 5;

/** Guests, room that is held, moves, and work that was ordered of it: undefined when it has none of these. */
export function useOf({ fleet }: Bedroom, host: HostRecord, resting = restful): UserError | undefined {
  const room = fleet.rooms.get(host.id);
  const inRoom = new Set<string>(Object.keys(room?.guestsMiB ?? {}));
  const there = [...fleet.vms.values()].filter(
    ({ id, host: at, state }) => inRoom.has(id) || (at === host.id && !resting.has(state.kind)),
  );
  if (there.length > 0) {
    const names = there.slice(0, namesShown).map(({ name }) => name);
    return new UserError(
      'busy',
      `${host.name} has guests: ${names.join(', ')}${there.length > namesShown ? ` and ${there.length - namesShown} more` : ''}.`,
      `Move them away first: drover migrate ${names[0]}.`,
    );
  }
  const reserved = Object.keys(room?.reservationsMiB ?? {})[0];
  const move = fleet.unsettledMigrations().find(({ source, target }) => source === host.id || target === host.id);
  if (reserved === undefined && move === undefined) return undefined;
  const id = move?.id ?? reserved ?? '';
  return new UserError(
    'busy',
    `${host.name} takes part in migration ${id}, which is not over or not cleared away yet.`,
    `Wait for its end: drover migration show ${id}.`,
  );
}

/** VMs in these states need nothing of their host. */
const restful: ReadonlySet<string> = new Set(['stopped', 'waiting', 'crashed']);
/** In these nothing of them runs, whatever is still to be done. */
const lifeless: ReadonlySet<string> = new Set([...restful, 'deleting']);

/**
 * Why it may not be sent to sleep now; undefined when it may.
 * @param drill then no proof is needed, that is what it is for
 * @param onceEmpty as if nothing ran there
 */
export function sleepRefusal(
  bedroom: Bedroom,
  host: HostRecord,
  record: SleepRecord | undefined,
  {
    drill,
    onceEmpty,
    now,
    options,
  }: { readonly drill: boolean; readonly onceEmpty: boolean; readonly now: number; readonly options: SleepOptions },
): UserError | undefined {
  const { name } = host;
  const refuse = (code: 'wrong-state' | 'refused' | 'unreachable', message: string, hint: string) =>
    new UserError(code === 'refused' ? 'policy-conflict' : code, message, hint);
  const kind = record?.state.kind ?? 'awake';
  if (kind !== 'awake') {
    const hint =
      kind === 'going-to-sleep' ? `See \`drover host show ${name}\`.` : `To wake it: drover host wake ${name}.`;
    return refuse('wrong-state', `${name} is ${wordsOfKind[kind]}.`, hint);
  }
  if (!record?.way) {
    const hint = `Say how: drover host sleep-way ${name} off (by its power controller), or suspend.`;
    return refuse('refused', `Nobody has said how ${name} sleeps and is woken.`, hint);
  }
  if (record.way.kind === 'off' && host.power === null) {
    const hint = `drover host power ${name} set --ipmi ADDRESS --user admin --password-file FILE`;
    return refuse('refused', `${name} has no power controller that could switch it on again.`, hint);
  }
  if (bedroom.liveness.isSilent(host.id) || host.fenced !== null) {
    return refuse(
      'unreachable',
      `${name} does not report.`,
      `Start its agent: a host is asked before it goes to sleep.`,
    );
  }
  const able = host.inventory.sleep?.[record.way.kind];
  if (!able?.ok) {
    const reason = able?.reason ?? 'its agent is older and cannot';
    return refuse(
      'refused',
      `${name} cannot sleep by ${record.way.kind}: ${reason}.`,
      'Mend that, or choose another way.',
    );
  }
  const used = onceEmpty ? undefined : useOf(bedroom, host);
  if (used) return used;
  const othersAwake = [...bedroom.fleet.hosts.values()].some(
    (other) =>
      other.id !== host.id &&
      !bedroom.liveness.isSilent(other.id) &&
      (bedroom.fleet.sleeps.get(other.id)?.state.kind ?? 'awake') === 'awake',
  );
  if (!othersAwake) {
    return refuse('refused', `${name} is the only host that is awake.`, 'Wake another first: drover host wake HOST.');
  }
  if (drill) return undefined;
  const drillHint = `Prove it: drover host drill ${name} (sends it to sleep and wakes it).`;
  if (record.proof === null) {
    return refuse('refused', `It was never proven that ${name} can be woken.`, drillHint);
  }
  const ageMs = now - record.proof.at;
  if (ageMs <= options.proofAgeMs) return undefined;
  return refuse(
    'refused',
    `That ${name} can be woken was proven last ${ageWords(ageMs)} ago; ${ageWords(options.proofAgeMs)} are allowed.`,
    drillHint,
  );
}

const dayMs = 86_400_000;

function ageWords(ms: number): string {
  return ms < 2 * dayMs ? formatMs(ms) : `${Math.floor(ms / dayMs)} days`;
}

export const wordsOfKind = {
  awake: 'awake',
  'going-to-sleep': 'going to sleep',
  asleep: 'asleep',
  waking: 'being woken',
  'wake-failed': 'asleep and did not wake',
} as const satisfies Record<SleepRecord['state']['kind'], string>;

/** Why nothing can be placed there for its sleep; undefined: it is awake. */
export function sleepBar(host: HostRecord, record: SleepRecord | undefined): UserError | undefined {
  const kind = record?.state.kind ?? 'awake';
  if (kind === 'awake') return undefined;
  const hint =
    kind === 'waking'
      ? `Wait until it reports (drover host wake ${host.name} --wait), or choose another host.`
      : `Wake it (drover host wake ${host.name} --wait), or choose another host.`;
  return new UserError('unreachable', `${host.name} is ${wordsOfKind[kind]}.`, hint);
}

/** Nothing runs there and nobody expects a word of it. A host that is down with guests on record was not sent there by us. */
export function sleepsOnPurpose(bedroom: Bedroom, host: HostRecord): boolean {
  return isDown(bedroom.fleet.sleeps.get(host.id)?.state) && useOf(bedroom, host, lifeless) === undefined;
}
