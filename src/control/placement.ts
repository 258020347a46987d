/**
 * May this VM be put on that host? One check, asked by creating, starting and moving alike; each refusal says what is in the
 * way and what to do. Choosing among the hosts that may: the one with most free room.
 *
 * Not here: balance and consolidation of a fleet.
 */
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { VmSpec } from '../model/vm.ts';
import type { Fleet } from './fleet.ts';
import type { Liveness } from './liveness.ts';

/** What a host must offer. */
export interface Need {
  readonly vmName: string;
  readonly memoryMiB: number;
  readonly machine: string;
  readonly networks: readonly string[];
  readonly pools: readonly string[];
  /** A running guest can only go on under the accelerator it was started with. */
  readonly accel: 'kvm' | 'tcg' | null;
}

export interface Site {
  readonly fleet: Pick<Fleet, 'hosts' | 'rooms'>;
  readonly liveness: Pick<Liveness, 'isSilent'>;
}

export function needOf(name: string, spec: VmSpec, accel: Need['accel'] = null): Need {
  const kernelPool = spec.boot.kind === 'kernel' ? [spec.boot.pool] : [];
  return {
    vmName: name,
    memoryMiB: spec.memoryMiB,
    machine: spec.machine,
    networks: [...new Set(spec.nics.map((nic) => nic.network))],
    pools: [...new Set([...spec.disks.map((disk) => disk.pool), ...kernelPool])],
    accel,
  };
}

export function freeMiB(site: Site, host: HostRecord): number {
  const room = site.fleet.rooms.get(host.id);
  return room === undefined ? 0 : room.capacityMiB - roomUsedMiB(room);
}

/** Why the VM may not be put there; undefined when it may. */
export function refusalOf(site: Site, need: Need, host: HostRecord): UserError | undefined {
  const { inventory, name } = host;
  const refuse = (code: 'cordoned' | 'unreachable' | 'incompatible' | 'no-room', message: string, hint: string) =>
    new UserError(code, message, hint);
  if (host.cordoned)
    return refuse('cordoned', `${name} is cordoned.`, `Choose another host, or \`drover host uncordon ${name}\`.`);
  if (site.liveness.isSilent(host.id)) {
    return refuse(
      'unreachable',
      `${name} is silent: its agent does not report.`,
      `Start the agent on ${name} again, or choose another host.`,
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

/**
 * The host with most free room among those that nothing speaks against.
 * @param alsoRefuse further reasons of the caller, asked after the ordinary ones
 * @throws UserError with each host's reason when there is none
 */
export function choosePlace(
  site: Site,
  need: Need,
  candidates: readonly HostRecord[],
  alsoRefuse: (host: HostRecord) => UserError | undefined = () => undefined,
): HostRecord {
  const refusals: UserError[] = [];
  const eligible = candidates.filter((host) => {
    const refusal = refusalOf(site, need, host) ?? alsoRefuse(host);
    if (refusal) refusals.push(refusal);
    return refusal === undefined;
  });
  const [best] = eligible.toSorted((a, b) => freeMiB(site, b) - freeMiB(site, a) || (a.name < b.name ? -1 : 1));
  if (best) return best;
  const [first] = refusals;
  const same = first !== undefined && refusals.every(({ code }) => code === first.code);
  throw new UserError(
    same ? first.code : 'no-room',
    refusals.length === 0
      ? `There is no other host for ${need.vmName}.`
      : `No host can take ${need.vmName}. ${refusals.map(({ message }) => message).join(' ')}`,
    same ? first.hint : 'Mend one of these reasons, or add a host.',
  );
}
