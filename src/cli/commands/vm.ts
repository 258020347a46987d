/** `drover vm`: create, look at, start, stop and delete VMs. The console is in console.ts. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import { defaultPriority } from '../../model/vm.ts';
import { MiB, formatBytes, parseDurationMs, parseSizeMiB } from '../../model/units.ts';
import type { NewVm, VmView } from '../../wire/endpoints.ts';
import { Interrupted, exitCodes, interruptible, named, type Context } from '../context.ts';
import { details, table } from '../table.ts';
import { collect, hasLabels, labelWords, parseLabelChanges, parseLabels, parseSelector } from '../labels.ts';
import { addConsole } from './console.ts';
import { parseCount } from '../numbers.ts';
import { addPlacingOptions, placingOf, placingWords, type PlacingFlags } from './vm-placing.ts';

const pollMs = 250;
/** Copying a large image takes its time. */
const createDeadlineMs = 15 * 60_000;
const startDeadlineMs = 2 * 60_000;
/** Where a host has to be woken first. */
const wakeDeadlineMs = 15 * 60_000;
const deleteDeadlineMs = 2 * 60_000;
/** For the answer to come back once the guest's own time is over. */
const stopGraceMs = 30_000;

export function addVm(program: Command, context: Context): void {
  const vm = program
    .command('vm')
    .alias('instance')
    .description('the virtual machines')
    .addHelpText('after', '\nExample:\n  $ drover vm list');

  addPlacingOptions(vm.command('create <name>'))
    .description('create a VM from an image, a blank disk or a kernel, and start it')
    .option('--image <file>', 'qcow2 or raw image on the host; it is copied, never written')
    .option('--disk <size>', 'grow the image to this, or the size of a blank disk, e.g. 10GiB')
    .option('--kernel <file>', 'boot this kernel instead of the disk')
    .option('--initrd <file>', 'with --kernel')
    .option('--append <words>', "the kernel's command line, with --kernel")
    .option('--cpus <n>', 'virtual CPUs', '1')
    .option('--memory <size>', 'e.g. 512MiB or 4GiB', '512MiB')
    .option('--host <host>', 'where it runs (else where it fits best, with the reason)')
    .option('--network <name>', "the network of its card, or 'none'", 'default')
    .option('--pool <name>', 'where its disk is kept', 'default')
    .option('--address <ip>', 'where a prober can reach it')
    .option('--label <key=value>', 'may be given several times', collect, [])
    .option('--recovery <what>', 'when its host is lost: restart it elsewhere, or manual', 'restart')
    .option('--restart <when>', 'when its guest ends: never, on-failure, or always', 'on-failure')
    .option('--priority <n>', '0 to 1000: larger starts first when many must', String(defaultPriority))
    .option('--no-start', 'only create it')
    .option('--dry-run', 'say whether it could be done, and where; change nothing')
    .option('--no-wait', 'return as soon as it was accepted')
    .addHelpText(
      'after',
      `
Examples:
  $ drover vm create web1 --image debian.qcow2 --cpus 2 --memory 1GiB
  $ drover vm create tiny --kernel vmlinuz --initrd initrd --append "console=ttyS0" --label use=test`,
    )
    .action((name: string, flags: CreateFlags) => create(context, name, flags));

  vm.command('list')
    .alias('ls')
    .description('all VMs')
    .option('--host <host>', 'only those on this host')
    .option('--selector <key=value>', 'only those with this label; may be given several times', collect, [])
    .addHelpText('after', '\nExamples:\n  $ drover vm list --host h1\n  $ drover vm list --selector tier=web')
    .action(async ({ host, selector }: { host?: string; selector: readonly string[] }) => {
      const wanted = parseSelector(selector);
      const all = await named(context, { host }, () =>
        context.client().listVms(host === undefined ? {} : { query: { host } }),
      );
      const vms = all.filter(({ labels }) => hasLabels(labels, wanted));
      context.print(vms, () => (vms.length === 0 ? 'no VMs' : vmTable(vms)));
    });

  vm.command('show <vm>')
    .description('one VM')
    .addHelpText('after', '\nExample:\n  $ drover vm show web1')
    .action(async (name: string) => {
      const view = await named(context, { vm: name }, () => context.client().getVm({ params: { vm: name } }));
      context.print(view, () => vmDetails(view));
    });

  addPlacingOptions(vm.command('set <vm>'))
    .description('change where a VM may be, and what becomes of it when its host is lost or its guest ends')
    .option('--recovery <what>', 'restart: started elsewhere; manual: left for a person')
    .option('--restart <when>', 'never; on-failure: when it died; always: also when it powered itself off')
    .option('--priority <n>', '0 to 1000: larger starts first when many must')
    .addHelpText(
      'after',
      '\nExamples:\n  $ drover vm set web1 --priority 900 --restart always\n  $ drover vm set web1 --apart web --pin h1,h2',
    )
    .action(async (name: string, flags: SetFlags) => {
      const placing = placingOf(flags);
      const body = {
        ...(flags.recovery === undefined ? {} : { recovery: parseRecovery(flags.recovery) }),
        ...(flags.restart === undefined ? {} : { restart: parseRestart(flags.restart) }),
        ...(flags.priority === undefined ? {} : { priority: parsePriority(flags.priority) }),
        ...(Object.keys(placing).length === 0 ? {} : { placing }),
      };
      const view = await named(context, { vm: name }, () => context.client().updateVm({ params: { vm: name }, body }));
      const where = placingWords(view);
      context.print(view, () => `${view.name}: ${recoveryWords(view)}${where === '' ? '' : `; ${where}`}`);
    });

  vm.command('label <vm> <labels...>')
    .description('set labels of a VM (key=value) and remove them (key-); selectors and tasks go by them')
    .addHelpText('after', '\nExamples:\n  $ drover vm label web1 tier=web owner=ann\n  $ drover vm label web1 owner-')
    .action(async (name: string, words: string[]) => {
      const body = { labels: parseLabelChanges(words) };
      const view = await named(context, { vm: name }, () => context.client().updateVm({ params: { vm: name }, body }));
      context.print(view, () => `${view.name}: ${labelWords(view.labels) || 'no labels'}`);
    });

  vm.command('start <vm>')
    .description('start a VM that is off')
    .option('--host <host>', 'where (else where it last ran)')
    .option('--dry-run', 'say whether it could be done; change nothing')
    .option('--no-wait', 'return as soon as it was accepted')
    .addHelpText('after', '\nExample:\n  $ drover vm start web1')
    .action(async (name: string, flags: { host?: string; dryRun?: true; wait: boolean }) => {
      const { dryRun = false } = flags;
      const view = await named(context, { vm: name, host: flags.host }, () =>
        context.client().startVm({ params: { vm: name }, body: { host: flags.host ?? null, dryRun } }),
      );
      if (dryRun) return context.print(view, () => `${view.name} would be started on ${view.host}`);
      await settle(context, view, { wanted: 'running', wait: flags.wait, deadlineMs: startDeadlineMs });
    });

  vm.command('stop <vm>')
    .description('shut a VM down by its power button')
    .option('--force', 'switch it off at once; what the guest has not written is lost')
    .option('--timeout <duration>', 'time the guest has to shut down', '60s')
    .option('--dry-run', 'say whether it could be done; change nothing')
    .option('--no-wait', 'return as soon as it was accepted')
    .addHelpText('after', '\nExample:\n  $ drover vm stop web1 --timeout 2m')
    .action(async (name: string, flags: { force?: true; timeout: string; dryRun?: true; wait: boolean }) => {
      const timeoutMs = parseDurationMs(flags.timeout);
      const { dryRun = false } = flags;
      const body = { force: flags.force ?? false, timeoutMs, dryRun };
      const view = await named(context, { vm: name }, () => context.client().stopVm({ params: { vm: name }, body }));
      if (dryRun) return context.print(view, () => `${view.name} would be stopped`);
      await settle(context, view, { wanted: 'stopped', wait: flags.wait, deadlineMs: timeoutMs + stopGraceMs });
    });

  vm.command('delete <vm>')
    .alias('rm')
    .description('delete a VM that is off; its disks are kept')
    .option('--delete-disks', 'delete its disks too')
    .option('--dry-run', 'say whether it could be done; change nothing')
    .option('-y, --yes', 'do not ask')
    .option('--no-wait', 'return as soon as it was accepted')
    .addHelpText('after', '\nExample:\n  $ drover vm delete web1 --delete-disks --yes')
    .action((name: string, flags: DeleteFlags) => remove(context, name, flags));

  addConsole(vm, context);
}

interface SetFlags extends PlacingFlags {
  readonly recovery?: string;
  readonly restart?: string;
  readonly priority?: string;
}

interface CreateFlags extends PlacingFlags {
  readonly image?: string;
  readonly disk?: string;
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly cpus: string;
  readonly memory: string;
  readonly host?: string;
  readonly network: string;
  readonly pool: string;
  readonly address?: string;
  readonly label: readonly string[];
  readonly recovery: string;
  readonly restart: string;
  readonly priority: string;
  readonly start: boolean;
  readonly dryRun?: true;
  readonly wait: boolean;
}

async function create(context: Context, name: string, flags: CreateFlags): Promise<void> {
  const body = newVmOf(name, flags, context.surroundings.cwd);
  const view = await named(context, { host: flags.host }, () => context.client().createVm({ body }));
  if (view.placedBecause !== null) context.say(`${name} goes to ${view.host}: ${view.placedBecause}`);
  if (flags.dryRun) return context.print(view, () => `${name} would be created on ${view.host}`);
  const wanted = flags.start ? 'running' : 'stopped';
  await settle(context, view, { wanted, wait: flags.wait, deadlineMs: createDeadlineMs });
}

function newVmOf(name: string, flags: CreateFlags, cwd: string): NewVm {
  const { image, disk, kernel, initrd, append } = flags;
  if (image === undefined && disk === undefined && kernel === undefined) {
    throw new UserError(
      'invalid-input',
      `${name} has nothing to boot from.`,
      'Give --image FILE, --kernel FILE with --initrd FILE, or --disk SIZE for a blank disk.',
    );
  }
  if (kernel === undefined && (initrd !== undefined || append !== undefined)) {
    const option = initrd === undefined ? '--append' : '--initrd';
    throw new UserError('invalid-input', `${option} was given without a kernel.`, 'Give --kernel FILE with it.');
  }
  return {
    name,
    cpus: parseCount(flags.cpus, '--cpus'),
    memoryMiB: parseSizeMiB(flags.memory),
    image: image === undefined ? null : resolve(cwd, image),
    diskMiB: disk === undefined ? null : parseSizeMiB(disk),
    boot:
      kernel === undefined
        ? { kind: 'disk' }
        : {
            kind: 'kernel',
            kernel: resolve(cwd, kernel),
            initrd: initrd === undefined ? null : resolve(cwd, initrd),
            append: append ?? '',
          },
    pool: flags.pool,
    network: flags.network === 'none' ? null : flags.network,
    address: flags.address ?? null,
    labels: parseLabels(flags.label, '--label'),
    host: flags.host ?? null,
    recovery: parseRecovery(flags.recovery),
    restart: parseRestart(flags.restart),
    priority: parsePriority(flags.priority),
    placing: placingOf(flags),
    start: flags.start,
    dryRun: flags.dryRun ?? false,
  };
}

function parseRecovery(text: string): VmView['recovery'] {
  if (text === 'restart' || text === 'manual') return text;
  throw new UserError('invalid-input', `There is no recovery '${text}'.`, 'Use --recovery restart or manual.');
}

function parseRestart(text: string): VmView['restart'] {
  if (text === 'never' || text === 'on-failure' || text === 'always') return text;
  throw new UserError('invalid-input', `There is no restart '${text}'.`, 'Use --restart never, on-failure or always.');
}

function parsePriority(text: string): number {
  const priority = Number(text);
  if (/^\d+$/.test(text) && priority <= 1000) return priority;
  throw new UserError('invalid-input', `'${text}' is not a priority.`, 'Use --priority with 0 to 1000.');
}

function recoveryWords({ recovery, restart, priority }: VmView): string {
  const what = recovery === 'restart' ? 'started elsewhere when its host is lost' : 'left for a person';
  return `recovery ${recovery} (${what}), restart ${restart}, priority ${priority}`;
}

interface DeleteFlags {
  readonly deleteDisks?: true;
  readonly dryRun?: true;
  readonly yes?: true;
  readonly wait: boolean;
}

async function remove(context: Context, name: string, flags: DeleteFlags): Promise<void> {
  const { stdin } = context.surroundings;
  const client = context.client();
  const view = await named(context, { vm: name }, () => client.getVm({ params: { vm: name } }));
  if (flags.dryRun) {
    const disks = flags.deleteDisks ? 'delete' : 'keep';
    const query = { disks, dryRun: 'true' } as const;
    const would = await client.deleteVm({ params: { vm: view.id }, query });
    return context.print(would, () => `${view.name} would be deleted`);
  }
  if (stdin.isTTY && !flags.yes) {
    const disks = view.disks.map(({ file }) => file).join(', ');
    const what = flags.deleteDisks && disks !== '' ? ` and its disks (${disks})` : '';
    context.surroundings.stderr.write(`Delete ${view.name}${what}? [y/N] `);
    if (!/^y(es)?$/i.test((await stdin.readLine())?.trim() ?? '')) {
      context.say('Nothing was deleted.');
      context.end(exitCodes.failed);
      return;
    }
  }
  const disks = flags.deleteDisks ? 'delete' : 'keep';
  const reply = await client.deleteVm({ params: { vm: view.id }, query: { disks } });
  if (flags.wait) {
    await poll(context, deleteDeadlineMs, `${view.name} to be deleted`, async (signal) => {
      const found = await client
        .getVm({ params: { vm: view.id } }, { signal })
        .catch((error: unknown) =>
          error instanceof UserError && error.code === 'not-found' ? undefined : raise(error),
        );
      return found === undefined ? true : undefined;
    });
  }
  const kept = reply.disksKept.length === 0 ? '' : `; kept: ${reply.disksKept.join(', ')}`;
  context.print(reply, () => `${view.name} is ${flags.wait ? 'deleted' : 'being deleted'}${kept}`);
}

function raise(error: unknown): never {
  throw error;
}

interface Wanted {
  readonly wanted: 'running' | 'stopped';
  readonly wait: boolean;
  readonly deadlineMs: number;
}

/** Waits until the VM is what it was asked to become, prints it, and fails when it became something else. */
async function settle(context: Context, first: VmView, { wanted, wait, deadlineMs }: Wanted): Promise<void> {
  const client = context.client();
  if (wait && first.state === 'waiting') context.say(`${first.name} waits: ${first.message ?? 'for a host'}`);
  const longestMs = first.state === 'waiting' ? Math.max(deadlineMs, wakeDeadlineMs) : deadlineMs;
  let begun = false;
  const ended = (view: VmView): boolean => {
    if (view.state === wanted || view.state === 'crashed') return true;
    if (wanted === 'running') {
      begun ||= view.state === 'starting';
      return view.state === 'stopped' && (begun || view.message !== null);
    }
    begun ||= view.state === 'stopping' || view.state === 'creating';
    return begun && view.state === 'running';
  };
  const view =
    wait && !ended(first)
      ? await poll(context, longestMs, `${first.name} to be ${wanted}`, async (signal) => {
          const now = await client.getVm({ params: { vm: first.id } }, { signal });
          return ended(now) ? now : undefined;
        })
      : first;
  const good = !wait || view.state === wanted || (wanted === 'stopped' && view.state === 'crashed');
  if (!good && wanted === 'stopped') {
    throw new UserError(
      'timed-out',
      `${view.name} did not shut down${view.message ? `: ${view.message}` : ''}; it still runs on ${view.host}.`,
      `Give it more time with --timeout, or switch it off: drover vm stop ${view.name} --force`,
    );
  }
  context.print(view, () => `${view.name} is ${view.state} on ${view.host}${view.message ? `: ${view.message}` : ''}`);
  context.end(good ? exitCodes.done : exitCodes.failed);
}

/** Asks again until there is an answer. @throws UserError timed-out; Interrupted, having said that it goes on */
async function poll<T>(
  context: Context,
  deadlineMs: number,
  what: string,
  ask: (signal: AbortSignal) => Promise<T | undefined>,
): Promise<T> {
  const { clock } = context.surroundings;
  const interruption = interruptible(context);
  const { signal } = interruption;
  const until = clock.monotonic() + deadlineMs;
  try {
    while (clock.monotonic() < until) {
      const answer = await ask(signal);
      if (answer !== undefined) return answer;
      await clock.sleep(pollMs, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    context.say('The server goes on with it; only the waiting was stopped.');
    throw new Interrupted('interrupted', { cause: error });
  } finally {
    interruption.stop();
  }
  throw new UserError(
    'timed-out',
    `Waited ${Math.round(deadlineMs / 1000)} s in vain for ${what}.`,
    'It may still come: look with `drover vm list`, and with `drover doctor` at what is wrong.',
  );
}

function vmTable(vms: readonly VmView[]): string {
  const waiting = vms
    .filter(({ state }) => state === 'waiting')
    .map(({ name, message }) => `${name} waits: ${message}`);
  const list = table(
    ['VM', 'STATE', 'HOST', 'CPUS', 'MEMORY', 'BUSY', 'ADDRESS', 'MIGRATION'],
    vms.map((vm) => [
      vm.name,
      vm.state,
      vm.state === 'waiting' ? '-' : vm.hostState === 'silent' ? `${vm.host} (silent)` : vm.host,
      String(vm.cpus),
      formatBytes(vm.memoryMiB * MiB),
      vm.cpuCores === null ? '-' : vm.cpuCores.toFixed(2),
      vm.address ?? '-',
      vm.migration ?? '-',
    ]),
  );
  return [list, ...waiting].join('\n');
}

function vmDetails(vm: VmView): string {
  return details([
    ['vm', `${vm.name} (${vm.id})`],
    ['state', `${vm.state}${vm.message ? `: ${vm.message}` : ''}`],
    ['host', vm.hostState === 'silent' ? `${vm.host} (silent: what it runs is not known)` : vm.host],
    ['cpus', `${vm.cpus}${vm.cpuCores === null ? '' : `, ${vm.cpuCores.toFixed(2)} in use`}`],
    [
      'memory',
      `${formatBytes(vm.memoryMiB * MiB)}${vm.memoryResidentMiB === null ? '' : `, ${formatBytes(vm.memoryResidentMiB * MiB)} resident`}`,
    ],
    ['machine', `${vm.machine}, ${vm.cpuModel}`],
    ['boots', vm.boot],
    ['disks', vm.disks.map(({ pool, file, format }) => `${pool}/${file} (${format})`).join(', ')],
    ['network', vm.nics.map(({ network, mac }) => `${network} (${mac})`).join(', ')],
    ['address', vm.address],
    ['labels', labelWords(vm.labels)],
    ['migration', vm.migration],
    ['when its host is lost', recoveryWords(vm)],
    ['kept', placingWords(vm)],
    ['generation', String(vm.generation)],
    ['created', new Date(vm.createdAt).toISOString()],
  ]);
}
