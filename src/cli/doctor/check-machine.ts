/**
 * Is this machine fit to be a host? One function per question, each with what it found and how to mend it. Not here: how the
 * machine is asked (machine.ts), and what the server knows of the fleet.
 */
import { join } from 'node:path';
import { MiB, formatBytes, formatMs } from '../../model/units.ts';
import type { Finding } from '../../wire/endpoints.ts';
import type { Machine } from './machine.ts';

export interface Places {
  readonly stateDirectory: string;
  readonly poolDirectories: readonly string[];
  /** Looked at in this order, then PATH: a directory with usr/bin or bin, or the binary itself. */
  readonly qemuPlaces: readonly string[];
  /** This machine's clock minus the server's; null when not known. */
  readonly serverOffsetMs: number | null;
}

/** Below this an agent cannot keep its journals, above it a warning. */
const leastFreeMiB = 100;
const scarceFreeMiB = 2_048;
/** The Date header is good to half a second each way. */
const tolerableOffsetMs = 2_000;
const boundedSendQueueBytes = 65_536;

export async function checkMachine(machine: Machine, places: Places): Promise<Finding[]> {
  const kvm = await checkKvm(machine);
  const rest = await Promise.all([
    checkQemu(machine, places.qemuPlaces, kvm.severity === 'ok'),
    checkUserfaultfd(machine),
    checkBridges(machine),
    ...[places.stateDirectory, ...places.poolDirectories].map((place) => checkSpace(machine, place)),
    checkClock(machine, places.serverOffsetMs),
    checkSendQueue(machine),
  ]);
  return [kvm, ...rest];
}

const ok = (about: string, says: string): Finding => ({
  severity: 'ok',
  about: `this machine: ${about}`,
  says,
  mend: null,
});
const warning = (about: string, says: string, mend: string): Finding => ({
  severity: 'warning',
  about: `this machine: ${about}`,
  says,
  mend,
});
const error = (about: string, says: string, mend: string): Finding => ({
  ...warning(about, says, mend),
  severity: 'error',
});

/** /dev/kvm is there in many containers and nested guests whose CPU cannot run guests: both must be right. */
async function checkKvm(machine: Machine): Promise<Finding> {
  const flags = /^flags\s*:(.*)$/m.exec((await machine.read('/proc/cpuinfo')) ?? '')?.[1]?.split(/\s+/) ?? [];
  const kind = flags.includes('vmx') ? 'vmx' : flags.includes('svm') ? 'svm' : undefined;
  if (kind === undefined) {
    return warning(
      'KVM',
      'the CPU shows neither vmx nor svm: guests are emulated (TCG), many times slower',
      'Switch virtualization on in the firmware, or nested virtualization on the machine below.',
    );
  }
  if (!(await machine.exists('/dev/kvm'))) {
    const module = kind === 'vmx' ? 'kvm_intel' : 'kvm_amd';
    return warning('KVM', `the CPU has ${kind}, but there is no /dev/kvm`, `modprobe ${module}`);
  }
  if (!(await machine.can('/dev/kvm', 'read-write'))) {
    return warning('KVM', '/dev/kvm may not be opened by this user', 'Run the agent as root, or join the group kvm.');
  }
  return ok('KVM', `usable (${kind})`);
}

async function checkQemu(machine: Machine, qemuPlaces: readonly string[], kvm: boolean): Promise<Finding> {
  const name = 'qemu-system-x86_64';
  const candidates = qemuPlaces.flatMap((place) => [
    join(place, 'usr/bin', name),
    join(place, 'bin', name),
    join(place, name),
  ]);
  let binary = name;
  for (const candidate of candidates) {
    if (await machine.can(candidate, 'execute')) {
      binary = candidate;
      break;
    }
  }
  const root = binary.endsWith(`/usr/bin/${name}`) ? binary.slice(0, -`/usr/bin/${name}`.length) : undefined;
  // The private copy brings libraries of its own.
  const env = root ? { LD_LIBRARY_PATH: `${root}/usr/lib/x86_64-linux-gnu:${root}/lib/x86_64-linux-gnu` } : {};
  const printed = await machine.run(binary, ['--version'], env);
  const version = /version (\d+)\.(\d+)\.(\d+)/.exec(printed ?? '');
  if (!version) {
    const says = binary === name ? 'there is none' : `${binary} does not run`;
    return error('QEMU', says, 'Run `npm run setup`, which fetches one, or install qemu-system-x86 and qemu-utils.');
  }
  const words = `${version.slice(1).join('.')} (${binary})`;
  if (!kvm && Number(version[1]) < 10) {
    return error(
      'QEMU',
      `${words} without KVM corrupts the memory of a guest that is moved live`,
      'Use QEMU 10 or newer (bookworm-backports; `npm run setup` fetches it), or a machine with KVM.',
    );
  }
  return ok('QEMU', `${words}, ${kvm ? 'with KVM' : 'emulating'}`);
}

/** Post-copy stops a vCPU at a missing page by userfaultfd, which must also catch faults inside the kernel. */
async function checkUserfaultfd(machine: Machine): Promise<Finding> {
  const about = 'post-copy';
  const sysctl = (await machine.read('/proc/sys/vm/unprivileged_userfaultfd'))?.trim();
  if (sysctl === undefined && !(await machine.exists('/dev/userfaultfd'))) {
    return warning(
      about,
      'the kernel has no userfaultfd: guests cannot arrive here by post-copy',
      'Use a kernel with CONFIG_USERFAULTFD, as all of Debian are.',
    );
  }
  if (machine.isRoot) return ok(about, 'userfaultfd may be used (root)');
  if (sysctl === '1') return ok(about, 'userfaultfd may be used (vm.unprivileged_userfaultfd=1)');
  if (await machine.can('/dev/userfaultfd', 'read-write')) {
    return ok(about, 'userfaultfd may be used (/dev/userfaultfd; QEMU 10 or newer)');
  }
  return warning(
    about,
    'this user may not use userfaultfd: guests cannot arrive here by post-copy',
    'Run the agent as root, or: sysctl -w vm.unprivileged_userfaultfd=1',
  );
}

async function checkBridges(machine: Machine): Promise<Finding> {
  const printed = await machine.run('ip', ['-json', 'link', 'show', 'type', 'bridge']);
  if (printed === undefined) return error('bridges', '`ip` does not run', 'apt-get install iproute2');
  const names = bridgeNames(printed);
  if (names.length === 0) {
    return warning(
      'bridges',
      'there is none: guests get no network',
      'ip link add br0 type bridge && ip link set br0 up, then put the uplink into it',
    );
  }
  return ok('bridges', names.join(', '));
}

function bridgeNames(json: string): string[] {
  try {
    const links = JSON.parse(json === '' ? '[]' : json) as readonly { readonly ifname?: unknown }[];
    return links.flatMap(({ ifname }) => (typeof ifname === 'string' ? [ifname] : []));
  } catch {
    return [];
  }
}

async function checkSpace(machine: Machine, directory: string): Promise<Finding> {
  const about = `disk space of ${directory}`;
  const freeMiB = await machine.freeMiB(directory);
  if (freeMiB === undefined) return warning(about, 'cannot be read', 'Run doctor as the user of the agent.');
  const says = `${formatBytes(freeMiB * MiB)} free`;
  if (freeMiB < leastFreeMiB) return error(about, says, 'Free some: without it guests pause and journals stop.');
  if (freeMiB < scarceFreeMiB) return warning(about, says, 'Free some, or put the directory on a larger disk.');
  return ok(about, says);
}

async function checkClock(machine: Machine, serverOffsetMs: number | null): Promise<Finding> {
  if (serverOffsetMs !== null && Math.abs(serverOffsetMs) > tolerableOffsetMs) {
    const direction = serverOffsetMs > 0 ? 'ahead of' : 'behind';
    return warning(
      'clock',
      `${formatMs(Math.abs(serverOffsetMs))} ${direction} the server's: times of events will not fit`,
      'Synchronise both: apt-get install systemd-timesyncd, or chrony',
    );
  }
  const agrees = serverOffsetMs === null ? '' : ", agrees with the server's";
  const synchronised = (await machine.run('timedatectl', ['show', '--property=NTPSynchronized', '--value']))?.trim();
  if (synchronised === 'yes') return ok('clock', `synchronised${agrees}`);
  if (synchronised === 'no') {
    return warning('clock', 'not synchronised', 'apt-get install systemd-timesyncd, or chrony');
  }
  const tracking = await machine.run('chronyc', ['-c', 'tracking']);
  if (tracking !== undefined) return ok('clock', `chrony keeps it${agrees}`);
  if (agrees !== '') return ok('clock', "agrees with the server's");
  return warning(
    'clock',
    'whether it is synchronised cannot be told',
    'Install systemd-timesyncd or chrony, unless the machine below keeps the time.',
  );
}

/** What was written but not sent stands before the guest's last pages: unbounded it costs a third of the blackout and more. */
async function checkSendQueue(machine: Machine): Promise<Finding> {
  const about = 'send queue (net.ipv4.tcp_notsent_lowat)';
  const text = (await machine.read('/proc/sys/net/ipv4/tcp_notsent_lowat'))?.trim();
  if (text === undefined || !/^\d+$/.test(text)) {
    return warning(about, 'cannot be read', 'Look with: sysctl net.ipv4.tcp_notsent_lowat');
  }
  const bytes = Number(text);
  if (bytes <= 2 * boundedSendQueueBytes) return ok(about, formatBytes(bytes));
  return warning(
    about,
    'not bounded: guests are paused longer than need be when they leave this host',
    `sysctl -w net.ipv4.tcp_notsent_lowat=${boundedSendQueueBytes} (the agent does it when it may)`,
  );
}
