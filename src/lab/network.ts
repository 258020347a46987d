/**
 * The lab's networks, made of network namespaces, bridges and veth pairs. Nothing of the machine's own network is touched
 * but one link per lab in the root namespace, over which the server and the agents reach each other.
 *
 *     root ns: drv-<lab> ----- control --+-- h1: ctl0
 *                             (bridge)   +-- h2: ctl0                       all bridges but the hosts' br0
 *     client ns: eth0 -------- guest ----+-- h1: up0 in br0, beside taps    live in the switch namespace
 *                             (bridge)   +-- h2: up0 in br0, beside taps
 *                              migration-+-- h1: mig0, its egress shaped by tbf
 *                             (bridge)   +-- h2: mig0
 *
 * `raise` may be called at any time: what exists is left, what is missing is made, settings are applied again.
 * Here: links and addresses. Not here: processes (supervise.ts, down.ts).
 */
import { existsSync } from 'node:fs';
import { UserError, messageOf } from '../model/failure.ts';
import { batch, run } from './exec.ts';
import { addressesOf, checkSettings, directoriesOf, hostNames, namesOf, type LabSettings } from './state.ts';

const bridgeSettings = 'stp_state 0 forward_delay 0 mcast_snooping 0';
const switchBridges = ['control', 'guest', 'migration'] as const;
/** Labs take the first free 10.<octet>.0.0/16 from here upwards. */
const firstOctet = 77;
const lastOctet = 250;

/** One line in the root namespace that makes a pair; `near` says whether it is there already. */
interface Pair {
  readonly near: { readonly namespace: string | null; readonly link: string };
  readonly far: { readonly namespace: string; readonly link: string };
}

function pairsOf(settings: LabSettings): Pair[] {
  const names = namesOf(settings.name);
  const at = (link: string) => ({ namespace: names.switch, link });
  return [
    { near: { namespace: null, link: names.rootLink }, far: at('ctl-root') },
    { near: { namespace: names.client, link: 'eth0' }, far: at('gst-client') },
    ...hostNames(settings.hosts).flatMap((host) => [
      { near: { namespace: names.host(host), link: 'ctl0' }, far: at(`ctl-${host}`) },
      { near: { namespace: names.host(host), link: 'up0' }, far: at(`gst-${host}`) },
      { near: { namespace: names.host(host), link: 'mig0' }, far: at(`mig-${host}`) },
    ]),
  ];
}

/**
 * Makes the lab's network or repairs it.
 * @returns the second byte of its addresses
 * @throws UserError when the name is taken by a lab of another directory, or no addresses are free
 */
export async function raise(settings: LabSettings, signal?: AbortSignal): Promise<number> {
  checkSettings(settings);
  const names = namesOf(settings.name);
  const hosts = hostNames(settings.hosts);
  const wanted = [names.switch, names.client, ...hosts.map(names.host)];
  const [existing, root] = await Promise.all([namespaces(), rootLinks()]);
  const own = root.find((link) => link.name === names.rootLink);
  checkOwner(settings.name, own?.alias);
  const octet =
    own?.octet ??
    freeOctet(
      root.flatMap((link) => link.taken),
      await routedOctets(),
    );

  const links = new Map<string, ReadonlySet<string>>();
  await Promise.all(
    wanted
      .filter((name) => existing.has(name))
      .map(async (name) => links.set(name, new Set(await linkNames(name, signal)))),
  );
  const has = (namespace: string | null, link: string) =>
    namespace === null ? own !== undefined : (links.get(namespace)?.has(link) ?? false);

  // The kernel takes its time over a namespace that was deleted: its links' other ends may still be there.
  const stale = pairsOf(settings).filter(
    ({ near, far }) => !has(near.namespace, near.link) && has(far.namespace, far.link),
  );
  for (const { far } of stale) await run('ip', ['-n', far.namespace, 'link', 'del', far.link]).catch(() => '');

  await batch(
    'ip',
    [
      ...wanted.filter((name) => !existing.has(name)).map((name) => `netns add ${name}`),
      ...pairsOf(settings)
        .filter(({ near }) => !has(near.namespace, near.link))
        .map(({ near, far }) => {
          const where = near.namespace === null ? '' : `netns ${near.namespace}`;
          return `link add ${near.link} ${where} type veth peer name ${far.link} netns ${far.namespace}`;
        }),
    ],
    undefined,
    signal,
  );

  const addresses = addressesOf(octet);
  const quiet = (link: string) => `link set ${link} addrgenmode none`;
  const up = (link: string) => `link set ${link} up`;
  const inRoot = [
    quiet(names.rootLink),
    `link set ${names.rootLink} alias ${directoriesOf(settings.name).root}`,
    `address replace ${addresses.server}/24 dev ${names.rootLink}`,
    up(names.rootLink),
    ...mendPaths(names.rootLink),
  ];
  const ports: readonly (readonly [string, string])[] = [
    ['ctl-root', 'control'],
    ['gst-client', 'guest'],
    ...hosts.flatMap((host) => [
      [`ctl-${host}`, 'control'] as const,
      [`gst-${host}`, 'guest'] as const,
      [`mig-${host}`, 'migration'] as const,
    ]),
  ];
  const inSwitch = [
    up('lo'),
    ...switchBridges.flatMap((name) => [
      `link ${has(names.switch, name) ? 'set' : 'add'} ${name} type bridge ${bridgeSettings}`,
      quiet(name),
      up(name),
    ]),
    ...hosts.map((host) => `address replace ${addresses.bmc(host)}/24 dev control`),
    ...ports.flatMap(([port, bridge]) => [quiet(port), `link set ${port} master ${bridge}`, up(port)]),
  ];
  const inClient = [up('lo'), quiet('eth0'), `address replace ${addresses.client}/24 dev eth0`, up('eth0')];
  const inHost = (host: string) => [
    up('lo'),
    `link ${has(names.host(host), 'br0') ? 'set' : 'add'} br0 type bridge ${bridgeSettings}`,
    ...['br0', 'up0', 'ctl0', 'mig0'].map(quiet),
    'link set up0 master br0',
    `address replace ${addresses.control(host)}/24 dev ctl0`,
    `address replace ${addresses.migration(host)}/24 dev mig0`,
    ...['br0', 'up0', 'ctl0', 'mig0'].map(up),
    ...mendPaths('ctl0', 'mig0'),
  ];
  await Promise.all([
    batch('ip', inRoot, undefined, signal),
    batch('ip', inSwitch, names.switch, signal),
    batch('ip', inClient, names.client, signal),
    ...hosts.map((host) => batch('ip', inHost(host), names.host(host), signal)),
  ]);
  await shape(settings, signal);
  return octet;
}

/** Sets the speed of every host's migration link, also while it carries something. */
export async function shape(settings: LabSettings, signal?: AbortSignal): Promise<void> {
  const { name, hosts, linkSpeed } = settings;
  await Promise.all(
    hostNames(hosts).map(async (host) => {
      const namespace = namesOf(name).host(host);
      if (linkSpeed !== 'raw') {
        const line = `qdisc replace dev mig0 root tbf rate ${linkSpeed} burst 256k latency 20ms`;
        return batch('tc', [line], namespace, signal);
      }
      const shaped = await run('tc', ['-n', namespace, 'qdisc', 'show', 'dev', 'mig0'], { ...(signal && { signal }) });
      if (shaped.includes('tbf')) await batch('tc', ['qdisc del dev mig0 root'], namespace, signal);
    }),
  );
}

export type HostLink = 'migration' | 'control';

/** Cuts a host's link at the switch, as a pulled cable does, or mends it. */
export async function setLink(lab: string, host: string, link: HostLink, state: 'up' | 'down'): Promise<void> {
  const port = `${link === 'migration' ? 'mig' : 'ctl'}-${host}`;
  await run('ip', ['-n', namesOf(lab).switch, 'link', 'set', port, state]);
}

/** Ends a host's connections on the migration network; the other end is told, as far as the network carries. */
export async function resetMigrations(lab: string, octet: number, host: string): Promise<void> {
  const address = addressesOf(octet).migration(host);
  // It complains of sockets that were gone before it came to them.
  await run('ip', ['netns', 'exec', namesOf(lab).host(host), 'ss', '-K', 'state', 'established', 'src', address]).catch(
    () => '',
  );
}

/** Where nobody is: what is sent there is lost, without anybody being told. */
const nowhere = '02:00:00:00:00:00';

/**
 * Loses what `from` sends to `to`, each a host or `server`, on every network that both are in; the other way, and everybody else,
 * is left alone. `raise` mends it. Done by a wrong neighbour: kernels without packet filters can do that as well.
 */
export async function cutPath(state: LabSettings & { octet: number }, from: string, to: string): Promise<void> {
  const names = namesOf(state.name);
  const addresses = addressesOf(state.octet);
  const lose = (address: string, link: string) =>
    `neigh replace ${address} lladdr ${nowhere} nud permanent dev ${link}`;
  if (from === 'server') return batch('ip', [lose(addresses.control(to), names.rootLink)]);
  const lines =
    to === 'server'
      ? [lose(addresses.server, 'ctl0')]
      : [lose(addresses.control(to), 'ctl0'), lose(addresses.migration(to), 'mig0')];
  await batch('ip', lines, names.host(from));
}

function mendPaths(...links: readonly string[]): string[] {
  return links.map((link) => `neigh flush dev ${link} nud permanent`);
}

/** What of the lab's network is there now. */
export interface NetworkFound {
  readonly namespaces: readonly string[];
  readonly rootLink: boolean;
  /** The directory of the lab that made it. */
  readonly owner: string | undefined;
}

export async function findNetwork(lab: string): Promise<NetworkFound> {
  const [existing, root] = await Promise.all([namespaces(), rootLinks()]);
  const names = namesOf(lab);
  const link = root.find(({ name }) => name === names.rootLink);
  return {
    namespaces: [...existing].filter(names.isNamespace),
    rootLink: link !== undefined,
    owner: link?.alias,
  };
}

/** Removes every namespace and link with the lab's name. Its processes must be gone: they would keep the networks alive. */
export async function raze(lab: string): Promise<void> {
  const found = await findNetwork(lab);
  const errors: unknown[] = [];
  if (found.rootLink) await run('ip', ['link', 'del', namesOf(lab).rootLink]).catch((e: unknown) => errors.push(e));
  // One by one: a namespace that is gone meanwhile must not keep the rest.
  for (const name of found.namespaces) await run('ip', ['netns', 'del', name]).catch((e: unknown) => errors.push(e));
  const left = await findNetwork(lab);
  if (left.namespaces.length > 0 || left.rootLink) {
    throw new Error(`The lab's network cannot be removed: ${errors.map(messageOf).join('; ')}`, { cause: errors[0] });
  }
}

/** Every process inside the lab's namespaces, whoever started it. */
export async function processesInside(lab: string): Promise<number[]> {
  const found = await findNetwork(lab);
  const lists = await Promise.all(found.namespaces.map((name) => run('ip', ['netns', 'pids', name]).catch(() => '')));
  return lists.flatMap((text) => text.split(/\s+/).filter(Boolean).map(Number));
}

/** Taps that are left on a host's bridge: one per guest with a network card. */
export async function tapsOn(lab: string, host: string): Promise<string[]> {
  const links = await linkNames(namesOf(lab).host(host));
  return links.filter((link) => !['lo', 'br0', 'up0', 'ctl0', 'mig0'].includes(link));
}

/** @throws UserError when the network belongs to a lab of another directory that still exists */
export function checkOwner(lab: string, owner: string | undefined): void {
  if (owner === undefined || owner === directoriesOf(lab).root || !existsSync(owner)) return;
  throw new UserError(
    'already-exists',
    `A lab named '${lab}' is up already, from ${owner}.`,
    'Choose another name with --name, or take that one down from its own directory.',
  );
}

async function namespaces(): Promise<Set<string>> {
  const text = await run('ip', ['netns', 'list']);
  return new Set(text.split('\n').flatMap((line) => line.split(' ')[0] || []));
}

interface IpLink {
  readonly ifname: string;
  readonly ifalias?: string;
  readonly addr_info?: readonly { readonly family: string; readonly local: string }[];
}

// The cast: `ip -j` prints exactly this, and older versions print nothing at all instead of an empty list.
const parseLinks = (text: string) => JSON.parse(text.trim() || '[]') as readonly IpLink[];

async function linkNames(namespace: string, signal?: AbortSignal): Promise<string[]> {
  const text = await run('ip', ['-n', namespace, '-j', 'link', 'show'], { ...(signal && { signal }) });
  return parseLinks(text).map((link) => link.ifname);
}

async function rootLinks() {
  const links = parseLinks(await run('ip', ['-j', 'address', 'show']));
  return links.map((link) => {
    const taken = (link.addr_info ?? []).flatMap(({ local }) => octetOf(local) ?? []);
    return { name: link.ifname, alias: link.ifalias, taken, octet: taken[0] };
  });
}

async function routedOctets(): Promise<number[]> {
  const routes = await run('ip', ['-4', 'route', 'show']);
  return routes.split('\n').flatMap((line) => octetOf(line) ?? []);
}

function octetOf(text: string): number | undefined {
  const match = /^10\.(\d+)\./.exec(text);
  return match ? Number(match[1]) : undefined;
}

function freeOctet(...taken: readonly (readonly number[])[]): number {
  const used = new Set(taken.flat());
  for (let octet = firstOctet; octet <= lastOctet; octet++) if (!used.has(octet)) return octet;
  throw new UserError(
    'unavailable',
    `No network 10.${firstOctet}.0.0/16 to 10.${lastOctet}.0.0/16 is free on this machine.`,
    'Take labs down that are no longer used: drover lab status --all.',
  );
}
