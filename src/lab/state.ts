/**
 * What a lab is called and where its things are: names of namespaces and links, addresses, directories, the state file.
 * Everything carries the lab's name, so that it can be found again without the state file.
 *
 *     <repo>/.drover/lab/<name>/   state.json  supervisor.json  supervisor.sock  server/  h1/ h2/ …  pool/  logs/  power/
 *     <repo>/.drover/lab/current.json   where the CLI finds the lab that came up last
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../model/failure.ts';

export const repository = join(import.meta.dirname, '..', '..');
export const labsDirectory = join(repository, '.drover', 'lab');
export const defaultLabName = 'lab';
export const maxHosts = 16;
export const agentsPort = 7071;
export const peerPort = 7072;
/** Where each agent answers Prometheus. */
export const metricsPort = 7073;

/** Short enough for the name of a link (15 characters with its prefix). */
const labNamePattern = /^[a-z0-9][a-z0-9-]{0,9}$/;
const linkSpeedPattern = /^[1-9]\d{0,5}(kbit|mbit|gbit)$/;

export interface LabSettings {
  readonly name: string;
  readonly hosts: number;
  /** What `tc` calls a rate, e.g. 1gbit; `raw`: unshaped. */
  readonly linkSpeed: string;
}

const labState = z.object({
  schema: z.literal(1),
  name: z.string(),
  /** Second byte of the lab's addresses: 10.<octet>.… */
  octet: z.number().int().min(1).max(254),
  hosts: z.number().int(),
  linkSpeed: z.string(),
  apiPort: z.number().int(),
  servers: z.number().int().default(1),
  startedAt: z.number(),
  /** Each host has a BMC. */
  bmc: z.boolean().default(true),
});
export type LabState = z.infer<typeof labState>;

/** @throws UserError invalid-input */
export function checkSettings(settings: LabSettings): void {
  if (!labNamePattern.test(settings.name)) {
    throw new UserError(
      'invalid-input',
      `'${settings.name}' cannot be the name of a lab.`,
      'Use 1 to 10 of a-z, 0-9 and "-", beginning with a letter or digit, for example lab2.',
    );
  }
  if (!Number.isInteger(settings.hosts) || settings.hosts < 2 || settings.hosts > maxHosts) {
    throw new UserError('invalid-input', `A lab cannot have ${settings.hosts} hosts.`, `Use 2 to ${maxHosts}.`);
  }
  checkLinkSpeed(settings.linkSpeed);
}

/** @throws UserError invalid-input */
export function checkLinkSpeed(speed: string): void {
  if (speed !== 'raw' && !linkSpeedPattern.test(speed)) {
    throw new UserError(
      'invalid-input',
      `'${speed}' is not a link speed.`,
      'Write a whole number and kbit, mbit or gbit, for example 200mbit, or raw for an unshaped link.',
    );
  }
}

/** Names of hosts: h1, h2, … */
export function hostNames(hosts: number): string[] {
  return Array.from({ length: hosts }, (_, i) => `h${i + 1}`);
}

export function hostNumber(host: string): number {
  return Number(host.slice(1));
}

/** Namespaces and the root's link. */
export function namesOf(lab: string) {
  return {
    host: (host: string) => `drover-${lab}-${host}`,
    switch: `drover-${lab}-switch`,
    client: `drover-${lab}-client`,
    /** The root namespace's end of the control network. */
    rootLink: `drv-${lab}`,
    isNamespace: (name: string) => new RegExp(`^drover-${lab}-(h\\d+|switch|client)$`).test(name),
  };
}

/** Control .0, guests .1, migration .2; hosts from .11, their BMCs from .111, guests from .100 upwards. */
export function addressesOf(octet: number) {
  return {
    server: `10.${octet}.0.1`,
    control: (host: string) => `10.${octet}.0.${10 + hostNumber(host)}`,
    bmc: (host: string) => `10.${octet}.0.${110 + hostNumber(host)}`,
    client: `10.${octet}.1.1`,
    guest: (number: number) => `10.${octet}.1.${100 + number}`,
    migration: (host: string) => `10.${octet}.2.${10 + hostNumber(host)}`,
  };
}

export function directoriesOf(lab: string) {
  const root = join(labsDirectory, lab);
  return {
    root,
    state: join(root, 'state.json'),
    server: join(root, 'server'),
    token: join(root, 'server', 'token'),
    fleetKey: join(root, 'server', 'fleet.key'),
    host: (host: string) => join(root, host),
    pool: join(root, 'pool'),
    logs: join(root, 'logs'),
    /** Of the hosts: BMCs, and what stands for the machine itself (power.ts). */
    power: join(root, 'power'),
    supervisorPlan: join(root, 'supervisor.json'),
    supervisorSocket: join(root, 'supervisor.sock'),
    children: join(root, 'children.json'),
  };
}
/** Where the agent with this state directory keeps its guests' sockets (chosen in agent/main.ts: sockets need short paths). */
export function runDirectoryOf(stateDirectory: string): string {
  return `/run/drover/${createHash('sha256').update(stateDirectory).digest('hex').slice(0, 12)}`;
}

const currentFile = join(labsDirectory, 'current.json');

/** @returns undefined when there is none, or it is damaged (`up` then repairs) */
export function readState(lab: string): LabState | undefined {
  return readJson(directoriesOf(lab).state, labState);
}

export function writeState(state: LabState): void {
  writeJson(directoriesOf(state.name).state, state);
}

/** Makes this lab the one the CLI talks to. */
export function pointCliAt(state: LabState): void {
  writeJson(currentFile, { server: apiOf(state), tokenFile: directoriesOf(state.name).token });
}

/** Forgets the lab as the one the CLI talks to, if it is. */
export function unpointCli(lab: string): void {
  const current = readJson(currentFile, z.object({ tokenFile: z.string() }));
  if (current?.tokenFile === directoriesOf(lab).token) rmSync(currentFile, { force: true });
}

/** All servers, as the CLI takes them. */
export function apiOf(state: LabState): string {
  return apisOf(state).join(',');
}

/** Each server by itself. */
export function apisOf({ servers, octet, apiPort }: LabState): string[] {
  return Array.from({ length: servers }, (_, n) => `http://127.${n === 0 ? '0.0' : `${octet}.0`}.${n + 1}:${apiPort}`);
}

/** Whole or not at all: readers never see half a file. */
export function writeJson(path: string, value: unknown): void {
  mkdirSync(join(path, '..'), { recursive: true });
  const aside = `${path}.${process.pid}.new`;
  writeFileSync(aside, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 });
  renameSync(aside, path);
}

export function readJson<T>(path: string, schema: z.ZodType<T>): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
  try {
    const parsed = schema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
