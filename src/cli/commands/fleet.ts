/** `drover fleet …`: the fleet as a whole. */
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { UserError, messageOf } from '../../model/failure.ts';
import { balanceSettingsShape } from '../../wire/balance.ts';
import type { Context } from '../context.ts';
import { limitsOf, parseCount } from '../numbers.ts';
import { addFleetRoll } from './fleet-roll.ts';

export function addFleet(program: Command, context: Context): void {
  const fleet = program
    .command('fleet')
    .description('the fleet as a whole')
    .addHelpText(
      'after',
      '\nExamples:\n  $ drover fleet export fleet.json\n  $ drover fleet roll --hosts h1,h2 --command ./update.sh',
    );
  fleet
    .command('set')
    .description('change what holds for the fleet as a whole')
    .requiredOption('--host-failures <n>', 'so many hosts may die and what they ran still finds room on the others')
    .addHelpText(
      'after',
      `
New VMs, plans, and hosts that could sleep leave that room free; \`drover doctor\` says when there is not enough.

Example:
  $ drover fleet set --host-failures 1`,
    )
    .action(async (flags: { hostFailures: string }) => {
      const limits = limitsOf(balanceSettingsShape.hostFailuresTolerated);
      const hostFailuresTolerated = parseCount(flags.hostFailures, '--host-failures', limits);
      const { settings } = await context.client().setBalance({ body: { hostFailuresTolerated } });
      const lost = settings.hostFailuresTolerated;
      context.print(settings, () => `room is kept free for the VMs of ${lost} lost ${lost === 1 ? 'host' : 'hosts'}`);
    });
  fleet
    .command('export [file]')
    .description('write a snapshot of hosts, VMs and their load, for `drover plan`; to stdout without a file')
    .option('--force', 'replace the file when it is there')
    .addHelpText(
      'after',
      `
It names hosts, VMs, labels and networks; it holds no keys and nothing of what is on disks.

Examples:
  $ drover fleet export fleet.json
  $ drover plan --snapshot fleet.json --goal balance`,
    )
    .action((file: string | undefined, flags: { force?: true }) => exportFleet(context, file, flags.force === true));
  addFleetRoll(fleet, context);
}

async function exportFleet(context: Context, name: string | undefined, force: boolean): Promise<void> {
  const snapshot = await context.client().getFleetSnapshot();
  const text = JSON.stringify(snapshot, null, 2);
  if (name === undefined) {
    context.surroundings.stdout.write(`${text}\n`);
    return;
  }
  const file = resolve(context.surroundings.cwd, name);
  await writeFile(file, `${text}\n`, { flag: force ? 'w' : 'wx', mode: 0o600 }).catch((error: unknown) => {
    const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST';
    throw new UserError(
      isThere ? 'already-exists' : 'invalid-input',
      isThere ? `${name} is there already.` : `${name} cannot be written: ${messageOf(error)}.`,
      isThere ? 'Name another file, or give --force.' : 'Name another file.',
      { cause: error },
    );
  });
  const [hosts, vms] = [snapshot.hosts.length, snapshot.vms.length];
  context.print({ file, hosts, vms }, () => `${file}: ${hosts} hosts, ${vms} VMs`);
}
