/** Lost hosts: `drover host fenced`, `drover recoveries` and `drover recovery show`. */
import type { Command } from 'commander';
import { formatMs } from '../../model/units.ts';
import type { RecoveryView } from '../../wire/recovery.ts';
import { exitCodes, named, type Context } from '../context.ts';
import { details, table } from '../table.ts';

export function addRecovery(program: Command, context: Context): void {
  program
    .command('recoveries')
    .description('hosts that were lost and what became of their VMs, newest first')
    .addHelpText('after', '\nExample:\n  $ drover recoveries')
    .action(async () => {
      const list = await context.client().listRecoveries();
      context.print(list, () => (list.length === 0 ? 'no host was lost' : recoveryTable(list)));
    });
  program
    .command('recovery')
    .description('one lost host, by the id of its recovery or by its name (then the latest)')
    .addHelpText('after', '\nExample:\n  $ drover recovery show h1')
    .command('show <id>')
    .description('what proved it dead, and how long each VM was away')
    .addHelpText('after', '\nExample:\n  $ drover recovery show h1')
    .action(async (ref: string) => {
      const client = context.client();
      const latest = ref.startsWith('rec_')
        ? undefined
        : (await client.listRecoveries({ query: { limit: 200 } })).find(({ host }) => host === ref);
      const view = latest ?? (await client.getRecovery({ params: { recovery: ref } }));
      context.print(view, () => recoveryDetails(view));
    });
}

/** The person's word that a host is off: the proof where nothing else can be had. */
export function addHostFenced(host: Command, context: Context): void {
  host
    .command('fenced <host>')
    .description('say that a silent host is off: its VMs are started elsewhere')
    .requiredOption('--because <how>', 'how you know; kept on record')
    .option('--force', 'also against a lease that is seen renewed: then a guest there may still run and write')
    .option('-y, --yes', 'do not ask')
    .addHelpText('after', '\nExample:\n  $ drover host fenced h1 --because "I pulled its plug"')
    .action(async (name: string, flags: { because: string; force?: true; yes?: true }) => {
      const { stdin, stderr } = context.surroundings;
      if (stdin.isTTY && !flags.yes) {
        stderr.write(
          `If a guest still runs on ${name}, it and its second copy write to the same disks.\n` +
            `Is ${name} really off? [y/N] `,
        );
        if (!/^y(es)?$/i.test((await stdin.readLine())?.trim() ?? '')) {
          context.say('Nothing was changed.');
          context.end(exitCodes.failed);
          return;
        }
      }
      const body = { because: flags.because, force: flags.force ?? false };
      const view = await named(context, { host: name }, () =>
        context.client().fenceHost({ params: { host: name }, body }),
      );
      context.print(view, () => `${view.host} is fenced\n\n${recoveryDetails(view)}`);
    });
}

const ms = (value: number | null): string => (value === null ? '-' : formatMs(value));

function recoveryTable(list: readonly RecoveryView[]): string {
  return table(
    ['RECOVERY', 'HOST', 'FENCED', 'PROOF', 'DETECT', 'FENCE', 'VMS', 'RUN AGAIN', 'SLOWEST'],
    list.map((view) => {
      const again = view.vms.filter(({ kind }) => kind === 'restart');
      const times = again.flatMap(({ totalMs }) => totalMs ?? []);
      return [
        view.id,
        view.host,
        new Date(view.fencedAt).toISOString(),
        view.proof,
        ms(view.detectMs),
        ms(view.fenceMs),
        String(view.vms.length),
        `${again.filter(({ startedAt }) => startedAt !== null).length} of ${again.length}`,
        times.length === 0 ? '-' : formatMs(Math.max(...times)),
      ];
    }),
  );
}

function recoveryDetails(view: RecoveryView): string {
  const head = details([
    ['recovery', view.id],
    ['host', view.host],
    ['proof', `${view.proof}: ${view.because} (${view.by})`],
    ['last report', view.silentSince === null ? 'not known' : new Date(view.silentSince).toISOString()],
    ['detected after', ms(view.detectMs)],
    ['fenced after', ms(view.fenceMs)],
    ['ended', view.endedAt === null ? 'not yet' : new Date(view.endedAt).toISOString()],
  ]);
  if (view.vms.length === 0) return head;
  const rows = view.vms.map((vm) => [
    vm.name,
    String(vm.priority),
    vm.kind,
    vm.says === null ? vm.state : `${vm.state}: ${vm.says}`,
    vm.target ?? '-',
    ms(vm.placeMs),
    ms(vm.bootMs),
    ms(vm.totalMs),
  ]);
  const heads = ['VM', 'PRIORITY', 'KIND', 'STATE', 'HOST', 'PLACED AFTER', 'STARTED AFTER', 'TOTAL'];
  return `${head}\n\n${table(heads, rows)}`;
}
