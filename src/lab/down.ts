/**
 * `drover lab down`: ends and removes everything that carries the lab's name, in whatever state it is: found by namespaces,
 * recorded processes, command lines and directories, never by the state file alone.
 */
import { cpSync, existsSync, readdirSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { checkOwner, findNetwork, processesInside, raze } from './network.ts';
import { commandLine, endAll, processId, processesOf } from './processes.ts';
import { directoriesOf, hostNames, labsDirectory, maxHosts, repository, runDirectoryOf, unpointCli } from './state.ts';
import { askSupervisor, endRecorded } from './supervise.ts';
import { requireRoot, withLock } from './up.ts';

const supervisorStopMs = 20_000;

/** @returns whether there was anything to take down */
export async function down(name: string, say: (line: string) => void): Promise<boolean> {
  requireRoot();
  return withLock('lab', async () => {
    const directories = directoriesOf(name);
    const found = await findNetwork(name);
    checkOwner(name, found.owner);
    if ((await leftovers(name)).length === 0) return false;

    // Asked first, so that nothing is started again while we end it; a supervisor that hangs is ended below like the rest.
    await askSupervisor(directories.supervisorSocket, { do: 'stop' }, supervisorStopMs).catch(() => undefined);
    await endAll(processesOf(directories.root).filter(isSupervisor), 2000);
    await endRecorded(directories.children);
    // Guests last: their agents are gone and cannot take it for an accident. They are the lab's own and may die at once.
    const inside = (await processesInside(name)).flatMap((pid) => processId(pid) ?? []);
    await endAll([...inside, ...processesOf(directories.root)], 0);
    await raze(name);
    unpointCli(name);
    for (const path of [...runDirectories(name), directories.root]) rmSync(path, { recursive: true, force: true });
    if (existsSync(labsDirectory) && readdirSync(labsDirectory).length === 0) rmdirSync(labsDirectory);
    say(`lab '${name}' is down`);
    return true;
  });
}

/** What its agents keep below /run, however many hosts it had: the state file may be gone. */
function runDirectories(name: string): string[] {
  const wanted = hostNames(maxHosts).map((host) => runDirectoryOf(directoriesOf(name).host(host)));
  const parent = dirname(wanted[0] ?? '');
  const there = existsSync(parent) ? readdirSync(parent).map((entry) => join(parent, entry)) : [];
  return there.filter((path) => wanted.some((mine) => path === mine || path.startsWith(`${mine}.`)));
}

function isSupervisor({ pid }: { pid: number }): boolean {
  return commandLine(pid).includes('supervise');
}

/** Copies a lab's logs to where `down` leaves them. @returns the directory */
export function keepLogs(name: string): string {
  const kept = join(repository, '.drover', 'logs', `${name}-${new Date().toISOString().replaceAll(/[:.]/g, '-')}`);
  const { root } = directoriesOf(name);
  if (existsSync(root)) {
    cpSync(root, kept, {
      recursive: true,
      filter: (path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true || path.endsWith('.log'),
    });
  }
  return kept;
}

/** What is still there of a lab that was taken down; empty when nothing is. */
export async function leftovers(name: string): Promise<string[]> {
  const network = await findNetwork(name);
  const directories = directoriesOf(name);
  return [
    ...network.namespaces.map((namespace) => `namespace ${namespace}`),
    ...(network.rootLink ? [`link drv-${name}`] : []),
    ...processesOf(directories.root).map(({ pid }) => `process ${pid}: ${commandLine(pid).join(' ').slice(0, 120)}`),
    ...[...runDirectories(name), directories.root].filter((path) => existsSync(path)),
  ];
}
