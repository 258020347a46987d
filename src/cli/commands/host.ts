/** `drover host`: the machines that run guests. */
import type { Command } from 'commander';
import { formatMs, formatBytes, MiB } from '../../model/units.ts';
import type { HostView } from '../../wire/endpoints.ts';
import { named, type Context } from '../context.ts';
import { collect, hasLabels, labelWords, parseLabelChanges, parseSelector } from '../labels.ts';
import { details, table } from '../table.ts';
import { addHostDrain } from './drain.ts';
import { addHostPower } from './host-power.ts';
import { addHostSleep, sleepWords } from './host-sleep.ts';
import { addHostFenced } from './recovery.ts';

export function addHost(program: Command, context: Context): void {
  const host = program
    .command('host')
    .alias('node')
    .description('the machines that run guests')
    .addHelpText('after', '\nExample:\n  $ drover host list');

  host
    .command('list')
    .alias('ls')
    .description('all hosts')
    .option('--selector <key=value>', 'only those with this label; may be given several times', collect, [])
    .addHelpText('after', '\nExamples:\n  $ drover host list --output json\n  $ drover host list --selector rack=a')
    .action(async ({ selector }: { selector: readonly string[] }) => {
      const wanted = parseSelector(selector);
      const all = await context.client().listHosts();
      const hosts = all.filter(({ labels }) => hasLabels(labels, wanted));
      const none = all.length === 0 ? 'no hosts yet: start `drover agent` on one' : 'no host has these labels';
      context.print(hosts, () => (hosts.length === 0 ? none : hostTable(hosts)));
    });

  host
    .command('show <host>')
    .description('one host')
    .addHelpText('after', '\nExample:\n  $ drover host show h1')
    .action(async (name: string) => {
      const view = await named(context, { host: name }, () => context.client().getHost({ params: { host: name } }));
      context.print(view, () => hostDetails(view, context.surroundings.clock.now()));
    });

  host
    .command('label <host> <labels...>')
    .description('set labels of a host (key=value) and remove them (key-); selectors go by them')
    .addHelpText('after', '\nExamples:\n  $ drover host label h1 rack=a\n  $ drover host label h1 rack-')
    .action(async (name: string, words: string[]) => {
      const body = { labels: parseLabelChanges(words) };
      const view = await named(context, { host: name }, () =>
        context.client().updateHost({ params: { host: name }, body }),
      );
      context.print(view, () => `${view.name}: ${labelWords(view.labels) || 'no labels'}`);
    });

  host
    .command('cordon <host>')
    .description('place nothing more on this host; what runs there stays')
    .addHelpText('after', '\nExample:\n  $ drover host cordon h1')
    .action(async (name: string) => {
      const view = await named(context, { host: name }, () => context.client().cordonHost({ params: { host: name } }));
      context.print(view, () => `${view.name} is cordoned: nothing more is placed there`);
    });

  host
    .command('uncordon <host>')
    .description('let VMs be placed on this host again')
    .addHelpText('after', '\nExample:\n  $ drover host uncordon h1')
    .action(async (name: string) => {
      const view = await named(context, { host: name }, () =>
        context.client().uncordonHost({ params: { host: name } }),
      );
      context.print(view, () => `${view.name} takes VMs again`);
    });

  host
    .command('report-failing <host>')
    .description('say that a host is sick: its VMs leave it live, the most important first')
    .requiredOption('--because <text>', 'what is wrong, kept with every move that follows')
    .option('--suspect', 'not yet sure: hold its VMs ready to leave at once, and move none')
    .addHelpText('after', '\nExample:\n  $ drover host report-failing h1 --because "fan 2 stands still"')
    .action(async (name: string, { because, suspect }: { because: string; suspect?: true }) => {
      const body = { severity: suspect ? ('suspect' as const) : ('failing' as const), because };
      const view = await named(context, { host: name }, () =>
        context.client().reportFailing({ params: { host: name }, body }),
      );
      const what = suspect ? 'are held ready to leave' : 'leave it now';
      context.print(view, () => `${view.name} is ${body.severity}: its ${view.vms.length} VMs ${what}`);
    });

  host
    .command('report-well <host>')
    .description('take the word back: what is held ready is cancelled, and VMs may be placed there again')
    .addHelpText('after', '\nExample:\n  $ drover host report-well h1')
    .action(async (name: string) => {
      const view = await named(context, { host: name }, () => context.client().reportWell({ params: { host: name } }));
      const still = view.sickness === null ? '' : `; it says itself: ${view.sickness.because}`;
      context.print(view, () => `nothing is reported against ${view.name} any more${still}`);
    });

  host
    .command('remove <host>')
    .description('forget a host that is silent and holds no VM')
    .addHelpText('after', '\nExample:\n  $ drover host remove h3')
    .action(async (name: string) => {
      const reply = await named(context, { host: name }, () => context.client().removeHost({ params: { host: name } }));
      const { disksLeft } = reply;
      const left = disksLeft.length === 0 ? '' : `; on its disks are left, of deleted VMs: ${disksLeft.join(', ')}`;
      context.print(reply, () => `${name} is removed${left}`);
    });

  addHostDrain(host, context);
  addHostPower(host, context);
  addHostSleep(host, context);
  addHostFenced(host, context);
}

function stateOf(host: HostView): string {
  const words = [
    host.fenced ? 'fenced' : host.sleep && host.sleep.state !== 'awake' ? host.sleep.state : host.state,
    ...(host.sickness ? [host.sickness.severity] : []),
    ...(host.drain === null ? (host.cordoned ? ['cordoned'] : []) : [host.drain]),
  ];
  return words.join(', ');
}

function hostTable(hosts: readonly HostView[]): string {
  return table(
    ['HOST', 'STATE', 'VMS', 'CPUS', 'LOAD', 'MEMORY', 'USED', 'QEMU', 'ACCEL', 'LIVE', 'POST-COPY'],
    hosts.map((host) => [
      host.name,
      stateOf(host),
      String(host.vms.length),
      String(host.cpus),
      host.cpuLoad === null ? '-' : `${Math.round(100 * host.cpuLoad)} %`,
      formatBytes(host.capacityMiB * MiB),
      formatBytes(host.usedMiB * MiB),
      host.qemuVersion,
      host.accel,
      host.liveMigration.ok ? 'yes' : 'no',
      host.postCopy.ok ? 'yes' : 'no',
    ]),
  );
}

function hostDetails(host: HostView, now: number): string {
  const able = ({ ok, reason }: HostView['postCopy']): string => (ok ? 'yes' : `no: ${reason ?? 'no reason given'}`);
  return details([
    ['host', `${host.name} (${host.id})`],
    ['state', stateOf(host)],
    ['fenced', host.fenced && `${host.fenced.proof}: ${host.fenced.because} (${host.fenced.by})`],
    ['because', host.sickness ? `${host.sickness.because} (${host.sickness.by})` : null],
    ['last report', host.lastReportAt === null ? 'never' : `${formatMs(Math.max(0, now - host.lastReportAt))} ago`],
    ['cpus', `${host.cpus}${host.cpuLoad === null ? '' : `, ${Math.round(100 * host.cpuLoad)} % busy`}`],
    [
      'memory',
      `${formatBytes(host.memoryMiB * MiB)}${host.memoryUsedMiB === null ? '' : `, ${formatBytes(host.memoryUsedMiB * MiB)} in use`}`,
    ],
    [
      'for guests',
      `${formatBytes(host.capacityMiB * MiB)}, ${formatBytes(host.usedMiB * MiB)} taken` +
        `${host.reservedMiB > 0 ? ` (${formatBytes(host.reservedMiB * MiB)} reserved by migrations)` : ''}`,
    ],
    ['vms', host.vms.length === 0 ? 'none' : host.vms.join(', ')],
    ['qemu', `${host.qemuVersion} (${host.accel})`],
    ['live migration', able(host.liveMigration)],
    ['post-copy', able(host.postCopy)],
    ['networks', host.networks.join(', ')],
    ['pools', host.pools.join(', ')],
    ['migration address', host.migrationAddress],
    ['labels', labelWords(host.labels)],
    ['power controller', host.power ?? 'none'],
    ['sleep', host.sleep && sleepWords(host.sleep)],
    ['session', String(host.session)],
  ]);
}
