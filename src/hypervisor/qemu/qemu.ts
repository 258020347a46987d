/** The hypervisor interface over real QEMU: processes, monitor connections and guests together. */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { systemClock } from '../../runtime/clock.ts';
import type { MemoryUse } from '../../model/forecast.ts';
import type { Ability, Endpoint, GuestLoad } from '../../model/host.ts';
import type { RunningSpec } from '../../model/vm.ts';
import {
  FailureError,
  type Guest,
  type GuestEvent,
  type GuestGone,
  type GuestKey,
  type GuestTasks,
  type Hypervisor,
  type HypervisorDescription,
  type LaunchOptions,
  type TransferOptions,
} from '../hypervisor.ts';
import { freeze, hasAgentPort, localize } from './argv.ts';
import { GuestAgent } from './guest-agent.ts';
import { tasksOver } from './guest-tasks.ts';
import type { QemuInstallation } from './locate.ts';
import { listenForTransfer, prepareTransfer, readGuestState, transferOf } from './migrate.ts';
import * as processes from './process.ts';
import { readMemoryUse } from './memory-use.ts';
import { Monitor } from './monitor.ts';
import { OobPipe } from './oob-pipe.ts';
import { connectQmp, type QmpConnection } from './qmp.ts';

const startTimeoutMs = 15_000;
const quitTimeoutMs = 3000;
/** For each of its two monitors. */
const adoptTimeoutMs = 2500;

export interface QemuOptions {
  readonly qemu: QemuInstallation;
  readonly accel: 'kvm' | 'tcg';
  /** Sockets: a short path, cleared at boot (/run). */
  readonly runDir: string;
  readonly logDir: string;
}

export function openQemu(options: QemuOptions): Hypervisor {
  mkdirSync(options.runDir, { recursive: true, mode: 0o700 });
  mkdirSync(options.logDir, { recursive: true, mode: 0o700 });
  return new QemuHypervisor(options);
}

class QemuHypervisor implements Hypervisor {
  readonly #options: QemuOptions;

  constructor(options: QemuOptions) {
    this.#options = options;
  }

  freeze = freeze;

  async describe(): Promise<HypervisorDescription> {
    const { qemu, accel } = this.#options;
    const version = `${qemu.version.major}.${qemu.version.minor}.${qemu.version.micro}`;
    const machines = await this.#askMachines();
    const liveMigration: Ability =
      accel === 'kvm' || qemu.version.major >= 10
        ? { ok: true }
        : {
            ok: false,
            reason: `QEMU ${version} without KVM corrupts guest memory in live moves; 10.0 or newer is needed`,
          };
    const { major, minor } = qemu.version;
    const hold: Ability =
      major > 8 || (major === 8 && minor >= 1)
        ? { ok: true }
        : { ok: false, reason: `QEMU ${version} cannot hold a move before its end; 8.1 or newer is needed` };
    return { version, accel, machines, liveMigration, postCopy: postCopyAbility(), hold };
  }

  async launch(options: LaunchOptions): Promise<Guest> {
    return this.#start(options, []);
  }

  async receive(
    options: LaunchOptions,
    transfer: TransferOptions,
    listenOn: string,
  ): Promise<{ guest: Guest; endpoint: Endpoint }> {
    const guest = await this.#start(options, ['-S', '-incoming', 'defer']);
    try {
      await prepareTransfer(guest.qmp, transfer, 'target', options.running.spec.memoryMiB);
      return { guest, endpoint: await listenForTransfer(guest.qmp, listenOn) };
    } catch (error) {
      await guest.destroy();
      throw error;
    }
  }

  async adopt(): Promise<Guest[]> {
    const running = processes.findRunning(this.#options.runDir);
    processes.sweep(this.#options.runDir, running);
    const guests = await Promise.all(running.map((file) => this.#adoptOne(file)));
    return guests.filter((guest) => guest !== undefined);
  }

  /** A guest whose monitor does not answer is not a guest that is gone: it is kept, and connected to when it answers. */
  async #adoptOne(file: processes.FoundProcess): Promise<Guest | undefined> {
    const files = processes.filesOf(this.#options.runDir, this.#options.logDir, file.key);
    const connect = (path: string) => connectQmp({ path, timeoutMs: adoptTimeoutMs });
    // Somebody else may hold the first monitor.
    const connection = await connect(files.qmp).catch(() => connect(files.rescue).catch(() => undefined));
    if (!connection && !processes.isAlive(file.pid, file.startTicks)) return undefined; // it ended meanwhile
    return new QemuGuest(file, files, connection, OobPipe.open(files.oob));
  }

  async #start(options: LaunchOptions, extra: readonly string[]): Promise<QemuGuest> {
    const { qemu, accel, runDir, logDir } = this.#options;
    const files = processes.filesOf(runDir, logDir, options.key);
    processes.prepareFiles(files);
    const argv = [
      ...qemu.libArgs,
      '-name',
      `guest=${doubled(options.name)}`,
      '-machine',
      `${options.running.spec.machine},accel=${accel},memory-backend=ram`,
      ...localize(options.running, options.local),
      '-chardev',
      `socket,id=console,path=${doubled(files.console)},server=on,wait=off,` +
        `logfile=${doubled(`${logDir}/${options.key.vm}.console.log`)},logappend=on`,
      ...(hasAgentPort(options.running)
        ? ['-chardev', `socket,id=agent,path=${doubled(files.agent)},server=on,wait=off`]
        : []),
      '-qmp',
      `unix:${files.qmp},server=on,wait=off`,
      '-qmp',
      `unix:${files.rescue},server=on,wait=off`,
      '-chardev',
      `pipe,id=oob,path=${doubled(files.oob)}`,
      '-mon',
      'chardev=oob,mode=control',
      // A guest that has panicked ends, whoever configured its kernel: what follows is decided elsewhere.
      '-action',
      'panic=shutdown',
      '-msg',
      'timestamp=on',
      ...extra,
    ];
    const failed = (detail: string, cause?: unknown) =>
      new FailureError(
        {
          code: 'guest-start-failed',
          message: `QEMU did not start ${options.name}.`,
          hint: lockHint(detail) ?? 'The detail is what QEMU said. Mend that and start it again.',
          detail,
        },
        { cause },
      );
    // Before the process: a guest that runs always has a file to be found by.
    processes.writeGuestFile(files, {
      key: options.key,
      name: options.name,
      running: options.running,
      taps: options.local.taps,
    });
    let oob: OobPipe | undefined;
    let started: processes.Started;
    try {
      oob = await OobPipe.make(files.oob);
      started = await processes.startProcess(qemu.binary, argv, { ...process.env, ...qemu.env }, files);
    } catch (error) {
      oob?.close();
      throw failed(error instanceof Error ? error.message : String(error), error);
    }
    const { pid, startTicks } = started;
    const file = {
      key: options.key,
      name: options.name,
      running: options.running,
      taps: options.local.taps,
      pid,
      startTicks,
    };
    let over: number | null | undefined;
    void started.exited.then((code) => (over = code ?? null));
    const deadline = systemClock.monotonic() + startTimeoutMs;
    let lastError: unknown;
    for (let waitMs = 3; systemClock.monotonic() < deadline && over === undefined; waitMs = Math.min(waitMs * 1.5, 8)) {
      try {
        const qmp = await connectQmp({ path: files.qmp, timeoutMs: startTimeoutMs });
        return new QemuGuest(file, files, qmp, oob);
      } catch (error) {
        lastError = error;
        await systemClock.sleep(waitMs);
      }
    }
    processes.killProcess(pid, startTicks);
    oob.close();
    await processes.waitGone(pid, startTicks);
    const detail = processes.lastWords(files.log);
    rmSync(files.dir, { recursive: true, force: true });
    throw failed(
      detail || (over === undefined ? 'its monitor did not answer in time' : `it ended at once with code ${over}`),
      lastError,
    );
  }

  async #askMachines(): Promise<string[]> {
    const { qemu, runDir, logDir } = this.#options;
    const files = processes.filesOf(runDir, logDir, processes.questionKey);
    processes.prepareFiles(files);
    const argv = [
      ...qemu.libArgs,
      '-machine',
      'none',
      '-nodefaults',
      '-display',
      'none',
      '-qmp',
      `unix:${files.qmp},server=on,wait=off`,
    ];
    const { pid, startTicks } = await processes.startProcess(qemu.binary, argv, { ...process.env, ...qemu.env }, files);
    try {
      for (let tries = 0; ; tries++) {
        try {
          using qmp = await connectQmp({ path: files.qmp, timeoutMs: startTimeoutMs });
          const machines = await qmp.execute('query-machines', {}, { timeoutMs: startTimeoutMs });
          return machines.map((machine) => machine.name).filter((name) => /^pc-(q35|i440fx)-/.test(name));
        } catch (error) {
          if (tries > 200 || !processes.isAlive(pid, startTicks)) throw error;
          await systemClock.sleep(10);
        }
      }
    } finally {
      processes.killProcess(pid, startTicks);
      await processes.waitGone(pid, startTicks);
      rmSync(files.dir, { recursive: true, force: true });
    }
  }
}

/** A comma ends an option's value unless it is doubled. */
function doubled(text: string): string {
  return text.replaceAll(',', ',,');
}

function lockHint(detail: string): string | undefined {
  if (!/Failed to get .* lock/.test(detail)) return undefined;
  return 'Another process has the disk open, perhaps this VM on another host. Drover never breaks that lock: find that process first.';
}

/** May a guest arrive here by post-copy? As root always; else by the sysctl or the device. */
export function postCopyAbility(): Ability {
  if (process.getuid?.() === 0) return { ok: true };
  try {
    if (readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim() === '1') return { ok: true };
  } catch {
    return { ok: false, reason: 'this kernel has no userfaultfd' };
  }
  return { ok: false, reason: 'userfaultfd is not allowed to this user (vm.unprivileged_userfaultfd = 0)' };
}

class QemuGuest implements Guest {
  readonly key: GuestKey;
  readonly pid: number;
  readonly running: RunningSpec;
  readonly consolePath: string;
  readonly gone: Promise<GuestGone>;
  readonly transfer;
  readonly tasks: GuestTasks | null;
  readonly qmp: Monitor;
  readonly #file: processes.FoundProcess;
  readonly #files: processes.GuestFiles;
  readonly #agent: GuestAgent | null;
  readonly #oob: OobPipe | undefined;
  #poweredOff = false;
  #panicked = false;
  #destroying = false;
  #lastLoad:
    | { at: number; cpuTicks: number; read: number; written: number; received: number; sent: number }
    | undefined;

  constructor(
    file: processes.FoundProcess,
    files: processes.GuestFiles,
    connection: QmpConnection | undefined,
    oob: OobPipe | undefined,
  ) {
    this.key = file.key;
    this.pid = file.pid;
    this.running = file.running;
    this.consolePath = files.console;
    this.qmp = new Monitor({
      paths: [files.qmp, files.rescue],
      isAlive: () => processes.isAlive(file.pid, file.startTicks),
      connection,
      oob,
    });
    this.#file = file;
    this.#files = files;
    this.transfer = transferOf(this.qmp, file.running.spec.memoryMiB);
    const agent = hasAgentPort(file.running) ? new GuestAgent(files.agent) : null;
    this.tasks = agent && tasksOver(agent);
    this.#agent = agent;
    this.#oob = oob;
    this.gone = this.#watchEnd();
  }

  async #watchEnd(): Promise<GuestGone> {
    const noted = (async () => {
      for await (const event of this.events(new AbortController().signal)) {
        if (event.kind === 'powered-off') this.#poweredOff = true;
        if (event.kind === 'panicked') this.#panicked = true;
      }
    })();
    await this.qmp.over;
    await noted;
    await processes.waitGone(this.pid, this.#file.startTicks);
    this.#agent?.close();
    this.#oob?.close();
    const said = processes.lastWords(this.#files.log);
    const words = this.#panicked ? `the kernel of the guest panicked. ${said}`.trim() : said;
    rmSync(this.#files.dir, { recursive: true, force: true });
    const how = this.#poweredOff ? 'powered-off' : this.#destroying ? 'destroyed' : 'died';
    return { at: systemClock.now(), how, words };
  }

  state() {
    return readGuestState(this.qmp);
  }

  events(signal: AbortSignal): AsyncIterable<GuestEvent> {
    return this.qmp.events(signal);
  }

  async continue(): Promise<void> {
    await this.qmp.execute('cont');
  }

  async powerDown(): Promise<void> {
    await this.qmp.execute('system_powerdown');
  }

  async destroy(): Promise<void> {
    this.#destroying = true;
    const over = new AbortController();
    const gone = this.gone.then(() => over.abort());
    try {
      await this.qmp.execute('quit', {}, { timeoutMs: quitTimeoutMs });
      await systemClock.sleep(quitTimeoutMs, over.signal);
    } catch {
      // it is gone already, or does not answer: by force below
    }
    processes.killProcess(this.pid, this.#file.startTicks);
    await gone;
  }

  memoryUse(): Promise<MemoryUse> {
    return readMemoryUse(this.qmp, this.pid, this.running.spec.memoryMiB);
  }

  async load(): Promise<GuestLoad> {
    const stat = processes.statFields(this.pid);
    const io = readNumbers(`/proc/${this.pid}/io`);
    const now = {
      at: systemClock.monotonic(),
      cpuTicks: Number(stat?.[11] ?? 0) + Number(stat?.[12] ?? 0),
      read: io['read_bytes'] ?? 0,
      written: io['write_bytes'] ?? 0,
      received: sum(this.#file.taps.map((tap) => readNumber(`/sys/class/net/${tap}/statistics/tx_bytes`))),
      sent: sum(this.#file.taps.map((tap) => readNumber(`/sys/class/net/${tap}/statistics/rx_bytes`))),
    };
    const before = this.#lastLoad ?? now;
    this.#lastLoad = now;
    const seconds = Math.max(0.001, (now.at - before.at) / 1000);
    const rate = (field: 'read' | 'written' | 'received' | 'sent') =>
      Math.max(0, (now[field] - before[field]) / seconds);
    const pages = Number(stat?.[21] ?? 0);
    return {
      cpuCores: Math.max(0, (now.cpuTicks - before.cpuTicks) / 100 / seconds),
      memoryResidentMiB: Math.round((pages * 4096) / 1024 / 1024),
      diskReadBytesPerSecond: rate('read'),
      diskWriteBytesPerSecond: rate('written'),
      netReceiveBytesPerSecond: rate('received'),
      netSendBytesPerSecond: rate('sent'),
    };
  }
}

function readNumber(path: string): number {
  try {
    return Number(readFileSync(path, 'utf8'));
  } catch {
    return 0; // gone while we looked
  }
}

function readNumbers(path: string): Record<string, number> {
  try {
    const lines = readFileSync(path, 'utf8').trim().split('\n');
    return Object.fromEntries(lines.map((line) => line.split(': ')).map(([name, value]) => [name, Number(value)]));
  } catch {
    return {};
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}
