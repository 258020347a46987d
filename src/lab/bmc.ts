/**
 * A BMC for the lab and the tests: the files of one `ipmi_sim` (Debian's openipmi), which asks a small program for the power and tells
 * it to change it. Here: those files and the command. Not here: what power means (power.ts).
 */
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { locateIpmi } from '../control/power/locate.ts';
import { repository } from './state.ts';

export const bmcUser = 'admin';

export interface BmcPlan {
  /** Of its own; made when it is not there. */
  readonly directory: string;
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly password: string;
  /** Called with `get power`, then prints `power:1` or `power:0`; and with `set power 1` or `set power 0`. */
  readonly chassis: string;
}

export interface BmcCommand {
  readonly command: string;
  readonly args: readonly string[];
}

/** Writes its files. @returns how to start it in the foreground, or why there is none here */
export function bmcCommand(plan: BmcPlan): ({ readonly ok: true } & BmcCommand) | { ok: false; reason: string } {
  const program = locateIpmi('ipmi_sim', { env: process.env, repoRoot: repository });
  if (!program.ok) return program;
  const { directory } = plan;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const file = (name: string) => join(directory, name);
  const authentications = ['callback', 'user', 'operator', 'admin'].map((who) => `allowed_auths_${who} md5`);
  const configuration = [
    `name "${plan.name}"`,
    'set_working_mc 0x20',
    'startlan 1',
    `addr ${plan.address} ${plan.port}`,
    'priv_limit admin',
    ...authentications,
    // Without one ipmi_sim speaks no IPMI 2.0.
    `guid ${createHash('sha256').update(directory).digest('hex').slice(0, 32)}`,
    'endlan',
    `chassis_control "${quoted(plan.chassis)}"`,
    `user 2 true "${bmcUser}" "${plan.password}" operator 10 md5`,
  ];
  // Any device will do: nobody asks for its sensors. The numbers are the maker's and the product's.
  const emulation = ['mc_setbmc 0x20', 'mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02', 'mc_enable 0x20'];
  writeFileSync(file('lan.conf'), `${configuration.join('\n')}\n`, { mode: 0o600 });
  writeFileSync(file('emulation'), `${emulation.join('\n')}\n`);
  const environment = Object.entries(program.env).map(([name, value]) => `${name}=${value}`);
  // -n: no console on stdin. The directory of its own state comes last: by it its supervisor knows it again.
  const args = ['-n', '-c', file('lan.conf'), '-f', file('emulation'), '-s', directory];
  return { ok: true, command: 'env', args: [...environment, program.binary, ...args] };
}

/** A program of the shell, which ipmi_sim calls with words behind its own. */
export function writeChassisProgram(path: string, lines: readonly string[]): void {
  writeFileSync(path, `#!/bin/sh\n${lines.join('\n')}\n`);
  chmodSync(path, 0o755);
}

/** For the shell, within the double quotes of ipmi_sim's configuration. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
