/**
 * From a VM's spec to QEMU's command line, in two steps: `freeze` fixes everything the guest can see, once per boot, with
 * placeholders for what differs between hosts; `localize` fills those in. Source and target start from the same frozen
 * list, because QEMU does not notice a device that is missing on one side (it would be reset in silence).
 *
 * Everything is pinned: machine version, CPU model, topology with maxcpus, PCI addresses, empty option ROMs.
 */
import type { LocalParts } from '../hypervisor.ts';
import type { DiskSpec, NicSpec, RunningSpec, VmSpec } from '../../model/vm.ts';

/** Slots on the root bus; q35's own devices use 0x1f. */
const firstDiskSlot = 0x10;
const firstNicSlot = 0x08;
/** By this device a guest's kernel says that it has panicked. */
const panicSlot = 0x07;
/** Its one port leads to the agent in the guest. */
const serialSlot = 0x06;
/** What QEMU's guest agent looks for. */
const agentPort = 'org.qemu.guest_agent.0';
/** Guests frozen before this have no port for an agent, and get none on their way to another host. */
const agentSince = 3;
export const maxDisks = 8;
export const maxNics = 8;

/** The guest-visible part of the command line. Pure; the same spec always gives the same list for one argv version: 2 added pvpanic, 3 the agent's port. */
export function freeze(spec: VmSpec): RunningSpec {
  if (spec.disks.length > maxDisks || spec.nics.length > maxNics) {
    throw new RangeError(`a VM has at most ${maxDisks} disks and ${maxNics} network cards`);
  }
  const argv = [
    '-no-user-config',
    '-nodefaults',
    '-display',
    'none',
    '-vga',
    'none',
    '-rtc',
    'base=utc',
    '-cpu',
    spec.cpuModel,
    '-smp',
    `cpus=${spec.cpus},sockets=1,cores=${spec.cpus},threads=1,maxcpus=${spec.cpus}`,
    '-m',
    `size=${spec.memoryMiB}M`,
    '-object',
    `memory-backend-ram,id=ram,size=${spec.memoryMiB}M`,
    '-serial',
    'chardev:console',
    ...boot(spec),
    ...spec.disks.flatMap((each, index) => disk(each, index, spec.boot.kind)),
    ...spec.nics.flatMap(nic),
    '-device',
    `pvpanic-pci,id=panic,addr=0x${panicSlot.toString(16)}`,
    '-device',
    `virtio-serial-pci,id=serial,addr=0x${serialSlot.toString(16)}`,
    '-device',
    `virtserialport,bus=serial.0,nr=1,id=agent0,chardev=agent,name=${agentPort}`,
  ];
  return { argvVersion: agentSince, argv, spec };
}

function boot(spec: VmSpec): string[] {
  if (spec.boot.kind === 'disk') return ['-boot', 'order=c,strict=on'];
  const { pool, kernel, initrd, append } = spec.boot;
  return [
    '-kernel',
    inPool(pool, kernel),
    ...(initrd === null ? [] : ['-initrd', inPool(pool, initrd)]),
    '-append',
    append,
  ];
}

function disk(spec: DiskSpec, index: number, boots: VmSpec['boot']['kind']): string[] {
  const node = {
    driver: spec.format,
    'node-name': `disk${index}`,
    discard: 'unmap',
    file: {
      driver: 'file',
      filename: inPool(spec.pool, spec.file),
      locking: 'on',
      discard: 'unmap',
      cache: { direct: true },
    },
    cache: { direct: true },
  };
  const slot = (firstDiskSlot + index).toString(16);
  // With -kernel QEMU takes the first boot index for itself.
  const bootIndex = index === 0 && boots === 'disk' ? ',bootindex=0' : '';
  return [
    '-blockdev',
    JSON.stringify(node),
    '-device',
    `virtio-blk-pci,id=vd${index},drive=disk${index},addr=0x${slot}${bootIndex}`,
  ];
}

function nic(spec: NicSpec, index: number): string[] {
  const slot = (firstNicSlot + index).toString(16);
  return [
    '-netdev',
    `tap,id=net${index},ifname={tap:${index}},script=no,downscript=no`,
    '-device',
    `virtio-net-pci,id=nic${index},netdev=net${index},mac=${spec.mac.replaceAll(',', ',,')},romfile=,addr=0x${slot}`,
  ];
}

/** Has it a port for an agent in the guest? Then the chardev `agent` is to be there, wherever it runs. */
export function hasAgentPort(running: RunningSpec): boolean {
  return running.argvVersion >= agentSince;
}

/** Fills in what belongs to this host. @throws RangeError for a placeholder this host has no value for */
export function localize(running: RunningSpec, local: LocalParts): string[] {
  return running.argv.map((argument, index) => {
    // The kernel's command line comes from users and is taken as it is.
    if (running.argv[index - 1] === '-append') return argument;
    return argument.replaceAll(/\{(pool|tap):([^{}]+)\}/g, (_, kind: string, name: string) => {
      const value = kind === 'pool' ? local.pools[name] : local.taps[Number(name)];
      if (value === undefined) throw new RangeError(`this host has no ${kind} '${name}'`);
      // Inside JSON a path is a string of JSON; a tap stands among options that commas part; a kernel stands alone.
      if (argument.startsWith('{"')) return JSON.stringify(value).slice(1, -1);
      return kind === 'tap' ? value.replaceAll(',', ',,') : value;
    });
  });
}

/** A path inside a pool. QEMU opens it as root, so it must not lead out. */
function inPool(pool: string, file: string): string {
  if (file.startsWith('/') || file.split('/').includes('..') || /[{}]/.test(pool + file)) {
    throw new RangeError(`'${file}' is not a path inside the pool '${pool}'`);
  }
  return `{pool:${pool}}/${file}`;
}
