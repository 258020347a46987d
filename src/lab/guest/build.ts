/**
 * Builds the lab's guest and prober: kernel, initrd and the static programs written in C.
 *
 *     node src/lab/guest/build.ts
 *
 *     .drover/debian (unpacked Debian packages) --+
 *     src/lab/guest/workload/*.c -----------------+--> .drover/guest/vmlinuz, .drover/guest/initrd
 *     src/lab/probe/probe.c ------------------------> .drover/bin/probe
 *
 * The same inputs give the same bytes. Outputs are written aside and renamed, so that a guest which starts meanwhile
 * sees the old or the new ones; nothing is said or done when they are up to date. Downloading is not done here.
 */
import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { access, chmod, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { zstdDecompressSync } from 'node:zlib';
import { cpioArchive, type CpioEntry } from './cpio.ts';
import { guestFiles, repository } from './files.ts';
import { librariesOf } from './shared-libraries.ts';

const run = promisify(execFile);
const here = import.meta.dirname;

/** Raised when an input is missing; says which and how to get it. */
export class GuestBuildError extends Error {
  override name = 'GuestBuildError';
}

/** What the guest's devices need, in the order in which the guest wants them: network first. */
const wantedModules = ['virtio_pci', 'virtio_net', 'virtio_blk', 'evdev', 'button', 'pvpanic_pci', 'virtio_console'];

const compileFlags = ['-std=gnu17', '-O2', '-static', '-Wall', '-Wextra', '-Wl,--build-id=none', '-s'];
/** No SSE: emulated CPUs run it through slow calls, and integer code is enough here. */
const workloadFlags = ['-fno-tree-vectorize', '-mgeneral-regs-only', '-pthread'];

/**
 * Builds what is not up to date.
 * @throws GuestBuildError when a package or the compiler is missing.
 */
export async function buildGuest(root: string = repository): Promise<'built' | 'up-to-date'> {
  const files = guestFiles(root);
  const stampPath = join(root, '.drover/guest/stamp');
  const inputs = await findInputs(root);
  const stamp = await fingerprint(inputs);
  const previous = await readFile(stampPath, 'utf8').catch(() => undefined);
  if (previous === stamp && (await allExist(Object.values(files)))) return 'up-to-date';

  const scratch = join(root, `.drover/guest-build-${randomUUID()}`);
  await mkdir(join(root, '.drover/guest'), { recursive: true });
  await mkdir(join(root, '.drover/bin'), { recursive: true });
  await mkdir(scratch, { recursive: true });
  try {
    const at = (name: string): string => join(scratch, name);
    await Promise.all([
      compile(inputs.workloadSources, at('init'), workloadFlags),
      compile([inputs.probeSource], at('probe'), []),
    ]);
    await writeFile(at('initrd'), await initrd(at('init'), inputs));
    await writeFile(at('vmlinuz'), await readFile(inputs.kernel));
    await writeFile(at('stamp'), stamp);
    await rename(at('vmlinuz'), files.kernel);
    await rename(at('initrd'), files.initrd);
    await rename(at('probe'), files.probe);
    await rename(at('stamp'), stampPath); // last: a build that was cut short is made again
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return 'built';
}

type Inputs = {
  readonly kernel: string;
  readonly modules: string;
  readonly busybox: string;
  /** QEMU's guest agent, linked with the libraries that lie unpacked beside it. */
  readonly agent: string;
  readonly debian: string;
  readonly workloadSources: readonly string[];
  readonly workloadHeaders: readonly string[];
  readonly probeSource: string;
};

async function findInputs(root: string): Promise<Inputs> {
  const debian = join(root, '.drover/debian');
  const kernels = (await listOrNone(join(debian, 'boot'))).filter((name) => name.startsWith('vmlinuz-')).toSorted();
  const kernel = kernels.at(-1);
  if (kernel === undefined) throw missing('the cloud kernel (package linux-image-cloud-amd64)', join(debian, 'boot'));
  const release = kernel.slice('vmlinuz-'.length);
  // Debian 13 moved both out of the top directory.
  const modules = await firstExisting([join(debian, 'lib/modules', release), join(debian, 'usr/lib/modules', release)]);
  if (modules === undefined) throw missing(`the modules of kernel ${release}`, join(debian, 'lib/modules'));
  const busybox = await firstExisting([join(debian, 'bin/busybox'), join(debian, 'usr/bin/busybox')]);
  if (busybox === undefined) throw missing('busybox (package busybox-static)', join(debian, 'bin'));

  const agent = join(debian, 'usr/sbin/qemu-ga');
  if (!(await exists(agent))) throw missing('the guest agent (package qemu-guest-agent)', join(debian, 'usr/sbin'));

  const workload = join(here, 'workload');
  const sources = (await readdir(workload)).toSorted().map((name) => join(workload, name));
  return {
    kernel: join(debian, 'boot', kernel),
    modules,
    busybox,
    agent,
    debian,
    workloadSources: sources.filter((path) => path.endsWith('.c')),
    workloadHeaders: sources.filter((path) => path.endsWith('.h')),
    probeSource: join(here, '..', 'probe', 'probe.c'),
  };
}

function missing(what: string, where: string): GuestBuildError {
  return new GuestBuildError(
    `cannot build the lab's guest: ${what} is not in ${where}. Run the set-up (npm start or npm test does it), ` +
      'which downloads and unpacks it there.',
  );
}

/** Packages never change under the same path and kernel release, so only small files are read. */
async function fingerprint(inputs: Inputs): Promise<string> {
  const hash = createHash('sha256');
  hash.update(`${inputs.kernel}\n${inputs.modules}\n${inputs.busybox}\n${inputs.agent}\n`);
  const own = [import.meta.filename, join(here, 'cpio.ts'), join(here, 'shared-libraries.ts')];
  for (const path of [...inputs.workloadSources, ...inputs.workloadHeaders, inputs.probeSource, ...own]) {
    hash.update(basename(path)).update(await readFile(path));
  }
  return `${hash.digest('hex')}\n`;
}

async function compile(sources: readonly string[], output: string, flags: readonly string[]): Promise<void> {
  try {
    await run('gcc', [...compileFlags, ...flags, ...sources, '-o', output], { timeout: 120_000 });
  } catch (cause) {
    const absent = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    const why = absent ? 'gcc is not installed (packages gcc and libc6-dev)' : 'gcc failed';
    // execFile adds what the compiler printed to the error it rejects with.
    const said = absent ? '' : `\n${(cause as { stderr?: string }).stderr ?? ''}`;
    throw new GuestBuildError(`cannot build ${basename(output)}: ${why}${said}`, { cause });
  }
  await chmod(output, 0o755);
}

async function initrd(init: string, inputs: Inputs): Promise<Buffer> {
  const modules = await modulesInLoadOrder(inputs.modules, wantedModules);
  const agent = await readFile(inputs.agent);
  const libraries = await librariesOf(agent, inputs.debian);
  const directory = (name: string): CpioEntry => ({ name, kind: 'directory', mode: 0o755 });
  return cpioArchive([
    directory('dev'),
    // The kernel opens it as the standard streams of process 1, before anything is mounted.
    { name: 'dev/console', kind: 'character-device', mode: 0o600, major: 5, minor: 1 },
    { name: 'init', kind: 'file', mode: 0o755, content: await readFile(init) },
    directory('bin'),
    { name: 'bin/busybox', kind: 'file', mode: 0o755, content: await readFile(inputs.busybox) },
    { name: 'bin/sh', kind: 'link', mode: 0o777, content: Buffer.from('busybox') },
    ...['usr', 'usr/sbin', 'lib', 'lib64', 'run'].map(directory),
    { name: 'usr/sbin/qemu-ga', kind: 'file', mode: 0o755, content: agent },
    // The loader looks into /lib for what it does not find elsewhere; it has to lie where programs name it itself.
    ...libraries.map(({ name, content }): CpioEntry => ({
      name: name.startsWith('ld-') ? `lib64/${name}` : `lib/${name}`,
      kind: 'file',
      mode: 0o755,
      content,
    })),
    directory('modules'),
    ...modules.map(({ name, content }): CpioEntry => ({
      name: `modules/${name}.ko`,
      kind: 'file',
      mode: 0o644,
      content,
    })),
    {
      name: 'modules/order',
      kind: 'file',
      mode: 0o644,
      content: Buffer.from(modules.map(({ name }) => `${name}.ko\n`).join('')),
    },
  ]);
}

type KernelModule = { readonly name: string; readonly content: Buffer };

/** The wanted modules and all that they need, each after what it needs; built-in ones left out. */
export async function modulesInLoadOrder(directory: string, wanted: readonly string[]): Promise<KernelModule[]> {
  const byName = new Map<string, string>();
  for (const path of await readdir(join(directory, 'kernel'), { recursive: true })) {
    const match = /([^/]+)\.ko(?:\.xz|\.zst)?$/.exec(path);
    if (match?.[1] !== undefined) byName.set(match[1].replaceAll('-', '_'), join(directory, 'kernel', path));
  }
  const builtin = new Set(
    (await readFile(join(directory, 'modules.builtin'), 'utf8'))
      .split('\n')
      .map((path) => basename(path, '.ko').replaceAll('-', '_')),
  );
  const ordered = new Map<string, KernelModule>();
  const add = async (name: string, neededBy: readonly string[]): Promise<void> => {
    if (ordered.has(name) || builtin.has(name)) return;
    const path = byName.get(name);
    if (path === undefined || neededBy.includes(name)) {
      throw new GuestBuildError(`kernel module ${[...neededBy, name].join(' > ')} is not in ${directory}`);
    }
    const content = await readModule(path);
    for (const dependency of moduleDependencies(content)) await add(dependency, [...neededBy, name]);
    ordered.set(name, { name, content });
  };
  for (const name of wanted) await add(name, []);
  return [...ordered.values()];
}

async function readModule(path: string): Promise<Buffer> {
  const packed = await readFile(path);
  if (path.endsWith('.zst')) return zstdDecompressSync(packed);
  if (!path.endsWith('.xz')) return packed;
  const { stdout } = await run('xz', ['-dc', path], { encoding: 'buffer', maxBuffer: 64 << 20, timeout: 30_000 });
  return stdout;
}

/** The names in a module's own `depends=` entry (section .modinfo), as depmod reads them. */
export function moduleDependencies(module: Buffer): string[] {
  const key = Buffer.from('\0depends=');
  const start = module.indexOf(key);
  if (start < 0) return [];
  const list = module.toString('latin1', start + key.length, module.indexOf(0, start + key.length));
  return list
    .split(',')
    .filter((name) => name !== '')
    .map((name) => name.replaceAll('-', '_'));
}

async function listOrNone(directory: string): Promise<string[]> {
  return await readdir(directory).catch(() => []);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function firstExisting(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if (await exists(path)) return path;
  return undefined;
}

async function allExist(paths: readonly string[]): Promise<boolean> {
  for (const path of paths) if (!(await exists(path))) return false;
  return true;
}

if (import.meta.main) {
  try {
    if ((await buildGuest()) === 'built') console.log(`built the lab's guest: ${guestFiles().initrd}`);
  } catch (error) {
    if (!(error instanceof GuestBuildError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
