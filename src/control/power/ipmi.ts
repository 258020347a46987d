/**
 * A BMC that speaks IPMI 2.0 over the network, through Debian's `ipmitool` (decision 0021).
 *
 * The password goes by file (-f), so that no process list shows it. The session asks for OPERATOR, the least that may switch
 * the power. Here: ipmitool's command line and its words. Not here: reading back (power.ts).
 */
import { execFile } from 'node:child_process';
import type { PowerSpec } from '../../model/host.ts';
import type { IpmiMissing, IpmiProgram } from './locate.ts';
import { readPassword } from './password.ts';
import { OrderRefused, type Bmc, type PowerReading } from './power.ts';

/** Seconds until a packet is sent again, and how often: two attempts of two seconds fit into one reading. */
const patience = ['-N', '2', '-R', '1'] as const;
/**
 * Cipher suites, best first. 17 (HMAC-SHA256) since 2013; 3 (HMAC-SHA1) is what every IPMI 2.0 BMC must have. Left to itself
 * ipmitool asks the BMC for its list first, which costs seconds where the BMC does not answer that.
 */
const suites = ['17', '3'] as const;
const noSuchSuite = /invalid (authentication|integrity|confidentiality) algorithm|no cipher suite match/i;
const refusals = /HMAC is invalid|unauthorized|insufficient privilege|illegal role|incorrect password/i;
/** Said by -v, without which ipmitool keeps the reason of a failed session to itself. */
const noise = /^(Loading IANA|IANA PEN|Get HPM|Running Get|Discovered|Close Session|Invalid completion code received)/;

type IpmiSpec = Extract<PowerSpec, { kind: 'ipmi' }>;

export function ipmiBmc(spec: IpmiSpec, ipmitool: IpmiProgram | IpmiMissing): Bmc {
  let suite = 0;

  /** @returns what it says. @throws OrderRefused, or Error with ipmitool's words */
  const ask = async (words: readonly string[], signal: AbortSignal): Promise<string> => {
    if (!ipmitool.ok) throw new OrderRefused(`${ipmitool.reason}. ${ipmitool.hint}`);
    // Looked at first: without a password ipmitool would ask for one.
    await readPassword(spec.passwordFile).catch((error: unknown) => {
      throw new OrderRefused(error instanceof Error ? error.message : String(error), { cause: error });
    });
    for (;;) {
      const level = ['-I', 'lanplus', '-L', 'OPERATOR', '-C', suites[suite] ?? '3'];
      const where = ['-H', spec.address, '-p', String(spec.port), '-U', spec.user, '-f', spec.passwordFile];
      const done = await run(ipmitool, ['-v', ...level, ...where, ...patience, ...words], signal);
      if (done.ok) return done.stdout;
      if (noSuchSuite.test(done.says) && suite + 1 < suites.length) suite++;
      else if (refusals.test(done.says)) throw new OrderRefused(done.says);
      else throw new Error(done.says);
    }
  };

  return {
    async read(signal): Promise<PowerReading> {
      const said = await ask(['chassis', 'power', 'status'], signal);
      const state = /^Chassis Power is (on|off)$/m.exec(said)?.[1];
      if (state === 'on' || state === 'off') return { state };
      return { state: 'unknown', says: `ipmitool says '${said.trim().slice(0, 200)}'` };
    },
    async order(wanted, signal) {
      // `soft` is the power button, by ACPI.
      await ask(['chassis', 'power', wanted === 'shut-down' ? 'soft' : wanted], signal);
    },
    async watts(signal) {
      // DCMI says it outright; older BMCs have a sensor for it.
      const dcmi = await ask(['dcmi', 'power', 'reading'], signal).then(dcmiWatts, () => null);
      return dcmi ?? (await ask(['sdr', 'type', 'Current'], signal).then(sensorWatts, () => null));
    },
  };
}

/** `Instantaneous power reading:   154 Watts` */
export function dcmiWatts(said: string): number | null {
  const watts = Number(/Instantaneous power reading:\s*(\d+)\s*Watts/i.exec(said)?.[1]);
  return watts > 0 ? watts : null;
}

/** `Pwr Consumption  | 77h | ok  |  7.1 | 154 Watts`: the largest is the machine's, others are its parts'. */
export function sensorWatts(said: string): number | null {
  const watts = [...said.matchAll(/\|\s*ok\s*\|[^|]*\|\s*(\d+(?:\.\d+)?)\s*Watts/gi)].map(([, number]) =>
    Number(number),
  );
  return watts.length === 0 ? null : Math.max(...watts);
}

type Done = { readonly ok: true; readonly stdout: string } | { readonly ok: false; readonly says: string };

function run(program: IpmiProgram, args: readonly string[], signal: AbortSignal): Promise<Done> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env['PATH'], HOME: '/nonexistent', LC_ALL: 'C', ...program.env };
    const options = { env, signal, killSignal: 'SIGKILL', maxBuffer: 1024 * 1024 } as const;
    const child = execFile(program.binary, args, options, (error, stdout, stderr) => {
      if (!error) return resolve({ ok: true, stdout });
      if (signal.aborted) return reject(new Error('ipmitool was ended', { cause: error }));
      const said = stderr.split('\n').map((line) => line.replace(/^[>\s]+/, '').trim());
      const words = [...new Set(said.filter((line) => line !== '' && !noise.test(line)))].join('; ');
      resolve({ ok: false, says: words || `ipmitool failed: ${error.message}` });
    });
    child.stdin?.end();
  });
}
