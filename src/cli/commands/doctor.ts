/** `drover doctor`: what is wrong with the fleet, or with this machine as a host, and how to mend it. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import type { Finding } from '../../wire/endpoints.ts';
import { exitCodes, type Context } from '../context.ts';
import { collect } from '../labels.ts';
import { checkMachine } from '../doctor/check-machine.ts';
import { realMachine } from '../doctor/machine.ts';

interface Flags {
  readonly hostOnly?: true;
  readonly state: string;
  readonly pool: readonly string[];
  readonly qemu?: string;
}

export function addDoctor(program: Command, context: Context): void {
  program
    .command('doctor')
    .description('what is wrong, and how to mend it: with the fleet, or with this machine as a host')
    .option('--host-only', 'look at this machine only (done too when no server can be reached)')
    .option('--state <dir>', "the agent's directory on this machine", '/var/lib/drover/agent')
    .option('--pool <dir>', 'a pool on this machine; may be given several times', collect, [])
    .option('--qemu <dir>', 'where QEMU is on this machine')
    .addHelpText(
      'after',
      `
Exit code: 0 when there is no error (warnings may be), 1 otherwise.

Examples:
  $ drover doctor
  $ drover doctor --host-only --pool /srv/vms --output json`,
    )
    .action((flags: Flags) => doctor(context, flags));
}

async function doctor(context: Context, flags: Flags): Promise<void> {
  const fleet = flags.hostOnly ? undefined : await checkFleet(context);
  const findings = [...(fleet?.findings ?? [])];
  if (fleet === undefined || !fleet.reached) {
    const { surroundings } = context;
    const pools = flags.pool.length > 0 ? flags.pool : ['/var/lib/drover/pool'];
    findings.push(
      ...(await checkMachine(realMachine(surroundings.env), {
        stateDirectory: resolve(surroundings.cwd, flags.state),
        poolDirectories: pools.map((pool) => resolve(surroundings.cwd, pool)),
        qemuPlaces: [
          flags.qemu,
          surroundings.env['DROVER_QEMU'],
          resolve(surroundings.repoRoot, '.drover/qemu'),
        ].flatMap((place) => place || []),
        serverOffsetMs: flags.hostOnly ? await clockOffset(context) : null,
      })),
    );
  }
  context.print(findings, () => findings.map(words).join('\n'));
  const count = (severity: Finding['severity']): number =>
    findings.filter((found) => found.severity === severity).length;
  const counted = (severity: 'error' | 'warning'): string =>
    `${count(severity)} ${severity}${count(severity) === 1 ? '' : 's'}`;
  context.say(`${counted('error')}, ${counted('warning')}, ${count('ok')} ok`);
  context.end(count('error') > 0 ? exitCodes.failed : exitCodes.done);
}

async function checkFleet(context: Context): Promise<{ reached: boolean; findings: Finding[] }> {
  try {
    return { reached: true, findings: await context.client().checkFleet() };
  } catch (error) {
    if (!(error instanceof UserError) || (error.code !== 'unavailable' && error.code !== 'timed-out')) throw error;
    const about = 'server';
    return { reached: false, findings: [{ severity: 'error', about, says: error.message, mend: error.hint }] };
  }
}

/** This machine's clock minus the server's, by the Date header (whole seconds); null when no server answers. */
async function clockOffset(context: Context): Promise<number | null> {
  const { clock } = context.surroundings;
  try {
    context.client();
    const connection = context.connection();
    if (!connection) return null;
    const before = clock.now();
    const [first = connection.server] = connection.server.split(',');
    const response = await fetch(first, { method: 'HEAD', signal: AbortSignal.timeout(3_000) });
    const date = response.headers.get('date');
    // The header was cut to the second: its middle is the best guess.
    return date === null ? null : (before + clock.now()) / 2 - (Date.parse(date) + 500);
  } catch {
    return null;
  }
}

function words({ severity, about, says, mend }: Finding): string {
  const mark = { ok: 'ok     ', warning: 'warning', error: 'ERROR  ' }[severity];
  return `${mark}  ${about}: ${says}${mend === null ? '' : `\n         mend: ${mend}`}`;
}
