/** What a lab that is up must not hold when nothing moves: QEMUs, taps, sockets and room that no record accounts for. */
import { existsSync, readdirSync } from 'node:fs';
import { run } from './exec.ts';
import { guestProcesses } from './guests.ts';
import { tapsOn } from './network.ts';
import { directoriesOf, metricsPort, namesOf, peerPort, runDirectoryOf } from './state.ts';
import type { Lab } from './up.ts';

const cleanWithinMs = 15_000;

/** Waits until nothing is left over. @throws Error with what is */
export async function untilClean(lab: Lab): Promise<void> {
  const deadline = performance.now() + cleanWithinMs;
  for (;;) {
    const left = await leftoversIn(lab);
    if (left.length === 0) return;
    if (performance.now() > deadline) throw new Error(`left over: ${left.join('; ')}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** QEMUs, taps, listening sockets, run directories, room and open migrations that nothing accounts for. */
export async function leftoversIn({ client, state }: Lab): Promise<string[]> {
  const [hosts, vms, open, processes] = await Promise.all([
    client.listHosts(),
    client.listVms(),
    client.listMigrations({ query: { open: 'true' } }),
    guestProcesses(state),
  ]);
  const left = open.map(({ id, phase }) => `migration ${id} is ${phase}`);
  for (const vm of vms) if (vm.migration !== null) left.push(`${vm.name} is held by ${vm.migration}`);
  for (const host of hosts) {
    const here = vms.filter((vm) => vm.host === host.name);
    const running = here.filter((vm) => vm.state === 'running');
    const memory = here
      .filter((vm) => vm.state !== 'stopped' && vm.state !== 'crashed' && vm.state !== 'waiting')
      .reduce((sum, vm) => sum + vm.memoryMiB, 0);
    const count = (what: string, found: number, wanted = running.length) => {
      if (found !== wanted) left.push(`${host.name}: ${found} ${what} for ${wanted} running VMs`);
    };
    if (host.reservedMiB !== 0) left.push(`${host.name}: ${host.reservedMiB} MiB reserved`);
    if (host.usedMiB !== memory) left.push(`${host.name}: ${host.usedMiB} MiB used by VMs of ${memory} MiB`);
    count('QEMU processes', processes.filter((each) => each.host === host.name).length);
    count('taps', (await tapsOn(state.name, host.name)).length);
    const runDirectory = runDirectoryOf(directoriesOf(state.name).host(host.name));
    count('run directories', existsSync(runDirectory) ? readdirSync(runDirectory).length : 0);
    const listening = await run('ip', ['netns', 'exec', namesOf(state.name).host(host.name), 'ss', '-Hltn']);
    const own = new RegExp(`:(${peerPort}|${metricsPort}) `);
    const strange = listening.split('\n').filter((line) => line !== '' && !own.test(line));
    if (strange.length > 0) left.push(`${host.name}: still listens: ${strange.join(', ').replaceAll(/\s+/g, ' ')}`);
  }
  return left;
}
