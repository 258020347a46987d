/**
 * The servers of a lab: one with a file of its own, or several on an etcd of three members; where each is reached, the
 * programs the supervisor runs for them, and which one leads.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../model/failure.ts';
import { openEtcd } from '../store/etcd.ts';
import { watchLeader } from '../store/leadership.ts';
import type { Leader } from '../store/leadership.ts';
import { etcdMembers, locateEtcd, makeCertificates } from './etcd.ts';
import type { Certificates, Member } from './etcd.ts';
import { addressesOf, agentsPort, apisOf, directoriesOf, repository, type LabState } from './state.ts';
import { logOf, type ChildPlan } from './supervise.ts';

/** In a lab with several servers. */
const memberCount = 3;
const leaderWithinMs = 10_000;

function serverName(n: number): string {
  return n === 0 ? 'server' : `server${n + 1}`;
}

/** Where agents dial, one for each server. */
export function doorsOf(state: LabState): string[] {
  const { server } = addressesOf(state.octet);
  return Array.from({ length: state.servers }, (_, n) => `${server}:${agentsPort + 10 * n}`);
}

function memberAddresses(state: LabState): string[] {
  return Array.from({ length: memberCount }, (_, n) => `127.${state.octet}.1.${n + 1}`);
}

/** What runs beside the agents. Makes the files that all servers share. @throws UserError unavailable without an etcd */
export async function serverPlans(state: LabState, node: readonly string[]): Promise<ChildPlan[]> {
  const directories = directoriesOf(state.name);
  // Before the servers make one each: they are asked with the same.
  if (!existsSync(directories.token)) {
    writeFileSync(directories.token, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  }
  const etcd = state.servers === 1 ? undefined : await etcdOf(state);
  const doors = doorsOf(state);
  const servers = apisOf(state).map((api, n): ChildPlan => {
    const own = {
      listen: new URL(api).host,
      agents: doors[n] ?? '',
      'fleet-key': directories.fleetKey,
      'token-file': directories.token,
      ...(state.linkSpeed === 'raw' ? {} : { 'link-speed': rateOf(state.linkSpeed) }),
      ...etcd?.options,
      // Last: by it the supervisor knows its children again.
      state: n === 0 ? directories.server : join(directories.root, serverName(n)),
    };
    return {
      name: serverName(n),
      // On a fleet it has a machine of its own; here it shall not take the cores of a guest that has just arrived.
      command: 'nice',
      // No lab host has a watchdog.
      args: [
        '-n',
        '4',
        ...node,
        'server',
        '--trust-guard',
        ...Object.entries(own).flatMap(([flag, value]) => [`--${flag}`, value]),
      ],
      readyLine: 'drover server ready',
      log: logOf(directories.logs, serverName(n)),
    };
  });
  return [...(etcd?.children ?? []), ...servers];
}

/** "1gbit", as tc writes it, in the words of `drover server`. */
function rateOf(linkSpeed: string): string {
  return linkSpeed.replace(/[kmg]bit$/, (unit) => `${unit.charAt(0).toUpperCase()}${unit.slice(1)}`);
}

/** Name of the program that leads, by the store. @throws UserError unavailable when none does in time */
export async function leadingServer(state: LabState): Promise<string> {
  if (state.servers === 1) return serverName(0);
  const files = await certificatesOf(state);
  const store = openEtcd({
    members: membersOf(state, files).map(({ endpoint }) => endpoint),
    tls: { ca: pem(files.ca), cert: pem(files.cert), key: pem(files.key) },
  });
  try {
    const found = AbortSignal.timeout(leaderWithinMs);
    const done = new AbortController();
    let leading: Leader | null = null;
    await watchLeader(store, AbortSignal.any([found, done.signal]), (leader) => {
      leading = leader;
      if (leader !== null) done.abort();
    });
    const api = (leading as Leader | null)?.api;
    const n = apisOf(state).findIndex((each) => each === api);
    if (n >= 0) return serverName(n);
  } finally {
    await store.close();
  }
  throw new UserError('unavailable', `No server of the lab '${state.name}' leads.`, 'See: drover lab status');
}

function membersOf(state: LabState, files: Certificates): Member[] {
  return etcdMembers(memberAddresses(state), files, (name) => join(directoriesOf(state.name).root, name));
}

function certificatesOf(state: LabState): Promise<Certificates> {
  return makeCertificates(join(directoriesOf(state.name).root, 'etcd-tls'), memberAddresses(state));
}

async function etcdOf(state: LabState): Promise<{ children: ChildPlan[]; options: Record<string, string> }> {
  const { root, logs } = directoriesOf(state.name);
  const program = locateEtcd(repository);
  mkdirSync(root, { recursive: true });
  const files = await certificatesOf(state);
  const members = membersOf(state, files);
  const children = members.map(({ name, args }): ChildPlan => ({
    name,
    command: program,
    args: [...args],
    readyLine: 'serving client traffic',
    log: logOf(logs, name),
  }));
  const addresses = members.map(({ endpoint }) => `${endpoint.address}:${endpoint.port}`);
  const options = {
    store: `etcd://${addresses.join(',')}`,
    'etcd-ca': files.ca,
    'etcd-cert': files.cert,
    'etcd-key': files.key,
  };
  return { children, options };
}

function pem(file: string): string {
  return readFileSync(file, 'utf8');
}
