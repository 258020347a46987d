/**
 * The other two contestants: a bare QMP script, of the least that moves a guest between two hosts.
 *
 * - `script`, tuned as Drover is: return path, downtime limit 30 ms, bounded send queue, no bandwidth limit, a target that
 *   waits for `cont` until the source has completed;
 * - `defaults`, what QEMU does by itself: no return path, downtime limit 300 ms, 128 MiB/s (more than a link of 1 Gbit/s
 *   carries), no bound on the send queue, a target that starts by itself. `events` is on for measuring.
 *
 * Both switch to post-copy at once (post-copy) or when the first whole round was sent (hybrid), and have no other wits: `auto`
 * is what a person would have chosen, knowing the guest. Their QEMU has the command line of Drover's guest, and they talk
 * to it by Drover's client.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { freeze, localize } from '../src/hypervisor/qemu/argv.ts';
import { detectAccel, type QemuInstallation } from '../src/hypervisor/qemu/locate.ts';
import {
  filesOf,
  killProcess,
  lastWords,
  prepareFiles,
  startProcess,
  waitGone,
} from '../src/hypervisor/qemu/process.ts';
import type { GuestFiles, Started } from '../src/hypervisor/qemu/process.ts';
import { connectQmp, type QmpConnection } from '../src/hypervisor/qemu/qmp.ts';
import type { GuestKey } from '../src/hypervisor/hypervisor.ts';
import type { RunningSpec, VmSpec } from '../src/model/vm.ts';
import { batch, run } from '../src/lab/exec.ts';
import { guestOf } from '../src/lab/guests.ts';
import { addressesOf, directoriesOf, namesOf } from '../src/lab/state.ts';
import { guestInitrd, guestKernel, type Lab } from '../src/lab/up.ts';
import { systemClock } from '../src/runtime/clock.ts';
import type { VmView } from '../src/wire/endpoints.ts';
import { otherHost } from './contestant.ts';
import type { BenchHost, Contestant, LiveTechnique, Move, WriterName } from './contestant.ts';
import { addressOf, appendOf, type BenchGuest } from './drover.ts';

const startMs = 15_000;
const droverLowatBytes = 65_536;
const unlimitedBytesPerSecond = 16 * 1024 ** 3;
const downtimeLimitMs = 30;
const sendQueue = 'net.ipv4.tcp_notsent_lowat';

export interface BareOptions {
  readonly lab: Lab;
  readonly qemu: QemuInstallation;
  readonly name: 'script' | 'defaults';
  readonly wanted: BenchGuest;
  /** Drover's guest, whose hardware this one shall have. */
  readonly like: VmView;
}

interface BareQemu {
  readonly process: Started;
  readonly files: GuestFiles;
  readonly qmp: QmpConnection;
}

/** Makes the guest's disk and boots it. */
export async function createBare(options: BareOptions, signal: AbortSignal): Promise<Contestant> {
  const { lab, qemu, like } = options;
  const { pool } = directoriesOf(lab.state.name);
  const spec = specOf(options);
  for (const { file, format } of spec.disks) {
    await run(qemu.imgBinary, ['create', '-q', '-f', format, join(pool, file), '64M'], { signal });
  }
  if (spec.memoryMiB !== like.memoryMiB) throw new Error(`${like.name} has not the memory that was asked for`);
  const bare = new Bare(options, freeze(spec));
  await bare.boot();
  await bare.guest.waitReady({ timeoutMs: 120_000, signal });
  return bare;
}

/** Drover's guest, with its own disk file, card and address. */
function specOf({ lab, like, wanted, name }: BareOptions): VmSpec {
  return {
    cpus: like.cpus,
    memoryMiB: wanted.memoryMiB,
    machine: like.machine,
    cpuModel: like.cpuModel,
    boot: { kind: 'kernel', pool: 'default', kernel: guestKernel, initrd: guestInitrd, append: appendOf(lab, wanted) },
    disks: like.disks.map((disk, index) => ({ ...disk, file: `bare-${name}-${index}.${disk.format}` })),
    nics: like.nics.map((nic) => ({ ...nic, mac: `52:54:00:be:${wanted.number.toString(16).padStart(2, '0')}:01` })),
  };
}

class Bare implements Contestant {
  readonly name: 'script' | 'defaults';
  readonly guest;
  readonly address: string;
  readonly #lab: Lab;
  readonly #qemu: QemuInstallation;
  readonly #running: RunningSpec;
  readonly #tap: string;
  readonly #qemus = new Map<BenchHost, BareQemu>();
  #host: BenchHost;
  #starts = 0;

  constructor({ lab, qemu, name, wanted }: BareOptions, running: RunningSpec) {
    this.#lab = lab;
    this.#qemu = qemu;
    this.name = name;
    this.address = addressOf(lab, wanted);
    this.guest = guestOf(lab.state, this.address);
    this.#running = running;
    this.#tap = `bare${wanted.number}`;
    this.#host = wanted.host;
  }

  get host(): BenchHost {
    return this.#host;
  }

  monitor(host: BenchHost): string | undefined {
    return this.#qemus.get(host)?.files.rescue;
  }

  async boot(): Promise<void> {
    await this.#launch(this.#host, []);
  }

  async prepare(): Promise<void> {
    const namespace = namesOf(this.#lab.state.name).host(this.#host);
    const bytes = this.name === 'script' ? droverLowatBytes : 4_294_967_295;
    await run('ip', ['netns', 'exec', namespace, 'sysctl', '-qw', `${sendQueue}=${bytes}`]);
  }

  start(technique: LiveTechnique, writer: WriterName, signal: AbortSignal): Move {
    const from = this.#host;
    const to = otherHost(from);
    const chosen = technique === 'auto' ? (writer === 'heavy' ? 'hybrid' : 'pre-copy') : technique;
    return {
      done: this.#move(chosen, from, to, signal),
      finish: async () => {
        await this.#unbound(from);
        await this.#end(from);
        this.#host = to;
        return {};
      },
    };
  }

  async #move(
    technique: Exclude<LiveTechnique, 'auto'>,
    from: BenchHost,
    to: BenchHost,
    signal: AbortSignal,
  ): Promise<void> {
    const tuned = this.name === 'script';
    const source = this.#qemus.get(from)?.qmp;
    if (!source) throw new Error(`${this.name} has no guest on ${from}`);
    const { qmp: target } = await this.#launch(to, [...(tuned ? ['-S'] : []), '-incoming', 'defer']);
    for (const side of [source, target]) await this.#arm(side, technique);
    await target.execute('migrate-incoming', { uri: `tcp:${addressesOf(this.#lab.state.octet).migration(to)}:0` });
    const socket = (await target.execute('query-migrate'))['socket-address']?.[0];
    if (socket?.type !== 'inet') throw new Error('QEMU does not say on which port it listens');

    const arriving = this.#follow(target, tuned, signal);
    const leaving = source.events({ signal });
    await source.execute('migrate', { uri: `tcp:${socket.host}:${socket.port}` });
    for await (const event of leaving) {
      if (event.name === 'MIGRATION_PASS' && event.data.pass === 2 && technique === 'hybrid') {
        await source.execute('migrate-start-postcopy');
      }
      if (event.name !== 'MIGRATION') continue;
      const { status } = event.data;
      if (status === 'active' && technique === 'post-copy') await source.execute('migrate-start-postcopy');
      if (status === 'failed' || status === 'cancelled') throw new Error(`${this.name}: QEMU says ${status}`);
      if (status !== 'completed') continue;
      if (tuned && !arriving.switched()) await target.execute('cont');
      break;
    }
    await arriving.over;
  }

  /** The target's side: lets the guest run at the switch to post-copy; over when it runs and all its memory is there. */
  #follow(target: QmpConnection, tuned: boolean, signal: AbortSignal) {
    let switched = false;
    const over = (async () => {
      let runs = false;
      for await (const event of target.events({ signal })) {
        if (event.name === 'RESUME') runs = true;
        const status = event.name === 'MIGRATION' ? event.data.status : undefined;
        if (status === 'postcopy-active' && !switched) {
          switched = true;
          if (tuned) await target.execute('cont');
        }
        if (runs && (!switched || status === 'completed')) return;
      }
      signal.throwIfAborted();
      throw new Error(`${this.name}: the target ended`);
    })();
    over.catch(() => {}); // awaited when the source is done
    return { over, switched: () => switched };
  }

  async #arm(qmp: QmpConnection, technique: LiveTechnique): Promise<void> {
    const tuned = this.name === 'script';
    await qmp.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'events', state: true },
        { capability: 'postcopy-ram', state: technique === 'post-copy' || technique === 'hybrid' },
        ...(tuned
          ? [
              { capability: 'return-path' as const, state: true },
              { capability: 'late-block-activate' as const, state: true },
            ]
          : []),
      ],
    });
    if (!tuned) return;
    await qmp.execute('migrate-set-parameters', {
      'downtime-limit': downtimeLimitMs,
      'max-bandwidth': unlimitedBytesPerSecond,
    });
  }

  async #launch(host: BenchHost, extra: readonly string[]): Promise<BareQemu> {
    const { name: lab } = this.#lab.state;
    const namespace = namesOf(lab).host(host);
    const { root, pool } = directoriesOf(lab);
    const directory = join(root, 'bare');
    mkdirSync(directory, { recursive: true });
    const key = { vm: this.name, generation: ++this.#starts } as unknown as GuestKey; // no VM of Drover's: only names files
    const files = filesOf(directory, directory, key);
    prepareFiles(files);
    await batch('ip', [`tuntap add dev ${this.#tap} mode tap`, `link set ${this.#tap} master br0 up`], namespace);
    const argv = [
      ['netns', 'exec', namespace, this.#qemu.binary],
      this.#qemu.libArgs,
      ['-name', `guest=${this.name}`],
      ['-machine', `${this.#running.spec.machine},accel=${detectAccel().accel},memory-backend=ram`],
      localize(this.#running, { taps: [this.#tap], pools: { default: pool } }),
      ['-chardev', `socket,id=console,path=${files.console},server=on,wait=off`],
      ['-qmp', `unix:${files.qmp},server=on,wait=off`],
      ['-qmp', `unix:${files.rescue},server=on,wait=off`],
      ['-msg', 'timestamp=on'],
      extra,
    ].flat();
    const started = await startProcess('ip', argv, { ...process.env, ...this.#qemu.env }, files);
    const deadline = systemClock.monotonic() + startMs;
    for (let waitMs = 3; ; waitMs = Math.min(waitMs * 1.5, 50)) {
      try {
        const qemu = { process: started, files, qmp: await connectQmp({ path: files.qmp }) };
        this.#qemus.set(host, qemu);
        return qemu;
      } catch (cause) {
        if (systemClock.monotonic() > deadline) {
          throw new Error(`${this.name}: QEMU did not start: ${lastWords(files.log)}`, { cause });
        }
        await systemClock.sleep(waitMs);
      }
    }
  }

  /** Puts the send queue back as it was for the others. */
  async #unbound(host: BenchHost): Promise<void> {
    const namespace = namesOf(this.#lab.state.name).host(host);
    await run('ip', ['netns', 'exec', namespace, 'sysctl', '-qw', `${sendQueue}=4294967295`]);
  }

  async #end(host: BenchHost): Promise<void> {
    const qemu = this.#qemus.get(host);
    if (!qemu) return;
    this.#qemus.delete(host);
    await qemu.qmp.execute('quit').catch(() => {}); // it closes the connection instead of answering, at times
    qemu.qmp.close();
    const { pid, startTicks } = qemu.process;
    const gone = waitGone(pid, startTicks, systemClock, AbortSignal.timeout(5000));
    await gone.catch(() => killProcess(pid, startTicks));
    await waitGone(pid, startTicks);
    await run('ip', ['-n', namesOf(this.#lab.state.name).host(host), 'link', 'del', this.#tap]);
  }
}
