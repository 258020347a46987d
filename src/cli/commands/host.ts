/** `drover host`: the machines that run guests. */
import type { Command } from 'commander';
import { formatMs, formatBytes, MiB } from '../../model/units.ts';
import type { HostView } from '../../wire/endpoints.ts';
import { named, type Context } from '../context.ts';
import { details, table } from '../table.ts';

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
    .addHelpText('after', '\nExample:\n  $ drover host list --output json')
    .action(async () => {
      const hosts = await context.client().listHosts();
      context.print(hosts, () => (hosts.length === 0 ? 'no hosts yet: start `drover agent` on one' : hostTable(hosts)));
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
    .command('remove <host>')
    .description('forget a host that is silent and holds no VM')
    .addHelpText('after', '\nExample:\n  $ drover host remove h3')
    .action(async (name: string) => {
      const reply = await named(context, { host: name }, () => context.client().removeHost({ params: { host: name } }));
      context.print(reply, () => `${name} is removed`);
    });
}

function stateOf(host: HostView): string {
  return host.cordoned ? `${host.state}, cordoned` : host.state;
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
    ['session', String(host.session)],
  ]);
}

export function labelWords(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ');
}
