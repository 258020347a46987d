/**
 * `drover lab break`: disturbances as data, done to a lab and undone by `mend`, which puts everything back as the lab's
 * state says and so needs not know what was broken. A killed guest stays dead: starting it is the fleet's business.
 */
import { UserError } from '../model/failure.ts';
import { guestProcesses } from './guests.ts';
import { cutPath, raise, setLink, shape, type HostLink } from './network.ts';
import { bmcOf, type PowerState } from './power.ts';
import { endAll, processId } from './processes.ts';
import { leadingServer } from './servers.ts';
import { checkLinkSpeed, directoriesOf, hostNames } from './state.ts';
import { askSupervisor } from './supervise.ts';
import { guardOf, hostsUp, type Lab } from './up.ts';

export type Disturbance =
  /** `once`: the supervisor starts it again at once; `hold`: it stays dead until mended. */
  | { readonly kind: 'kill-agent'; readonly host: string; readonly afterwards: 'restart' | 'hold' }
  | { readonly kind: 'kill-server'; readonly afterwards: 'restart' | 'hold' }
  | { readonly kind: 'freeze-agent'; readonly host: string }
  | { readonly kind: 'kill-guard'; readonly host: string; readonly afterwards: 'restart' | 'hold' }
  | { readonly kind: 'freeze-guard'; readonly host: string }
  | { readonly kind: 'kill-qemu'; readonly vm: string; readonly side: 'source' | 'target' }
  | { readonly kind: 'cut-link'; readonly host: string; readonly link: HostLink }
  /** As a plug that is pulled. `dead`: its BMC hung on the same plug. */
  | { readonly kind: 'power-off'; readonly host: string; readonly bmc: 'reachable' | 'dead' }
  /** What `from` sends to `to` is lost, on all networks; each is a host or `server`. */
  | { readonly kind: 'cut-path'; readonly from: string; readonly to: string; readonly ways: 'one' | 'both' }
  | { readonly kind: 'link-speed'; readonly speed: string };

/** For people: what was done. */
export function describe(disturbance: Disturbance): string {
  switch (disturbance.kind) {
    case 'kill-agent':
      return `agent of ${disturbance.host} killed${disturbance.afterwards === 'hold' ? ', stays dead' : ''}`;
    case 'kill-server':
      return `server killed${disturbance.afterwards === 'hold' ? ', stays dead' : ''}`;
    case 'freeze-agent':
      return `agent of ${disturbance.host} frozen`;
    case 'kill-guard':
      return `guard of ${disturbance.host} killed${disturbance.afterwards === 'hold' ? ', stays dead' : ''}`;
    case 'freeze-guard':
      return `guard of ${disturbance.host} frozen`;
    case 'kill-qemu':
      return `QEMU of ${disturbance.vm} killed on the ${disturbance.side}`;
    case 'cut-link':
      return `${disturbance.link} link of ${disturbance.host} cut`;
    case 'power-off':
      return `power of ${disturbance.host} off${disturbance.bmc === 'dead' ? ', and that of its BMC' : ''}`;
    case 'cut-path': {
      const { from, to, ways } = disturbance;
      return ways === 'both' ? `${from} and ${to} cut from each other` : `what ${from} sends to ${to} is lost`;
    }
    case 'link-speed':
      return `migration links at ${disturbance.speed}`;
  }
}

/** @throws UserError for names that are not there and guests that do not run */
export async function disturb(lab: Lab, disturbance: Disturbance): Promise<void> {
  const { state } = lab;
  switch (disturbance.kind) {
    case 'kill-agent':
      checkHost(lab, disturbance.host);
      return ask(lab, { do: 'kill', name: disturbance.host, afterwards: disturbance.afterwards });
    case 'kill-server':
      return ask(lab, { do: 'kill', name: await leadingServer(state), afterwards: disturbance.afterwards });
    case 'freeze-agent':
      checkHost(lab, disturbance.host);
      return ask(lab, { do: 'freeze', name: disturbance.host });
    case 'kill-guard':
      checkHost(lab, disturbance.host);
      return ask(lab, { do: 'kill', name: guardOf(disturbance.host), afterwards: disturbance.afterwards });
    case 'freeze-guard':
      checkHost(lab, disturbance.host);
      return ask(lab, { do: 'freeze', name: guardOf(disturbance.host) });
    case 'kill-qemu':
      return killQemu(lab, disturbance.vm, disturbance.side);
    case 'cut-link':
      checkHost(lab, disturbance.host);
      return setLink(state.name, disturbance.host, disturbance.link, 'down');
    case 'power-off':
      checkHost(lab, disturbance.host);
      if (disturbance.bmc === 'dead') await ask(lab, { do: 'kill', name: bmcOf(disturbance.host), afterwards: 'hold' });
      return ask(lab, { do: 'power', host: disturbance.host, state: 'off' });
    case 'cut-path': {
      const { from, to, ways } = disturbance;
      for (const end of [from, to]) if (end !== 'server') checkHost(lab, end);
      if (from === to) throw new UserError('invalid-input', `${from} cannot be cut from itself.`, 'Name two.');
      await cutPath(state, from, to);
      if (ways === 'both') await cutPath(state, to, from);
      return;
    }
    case 'link-speed':
      checkLinkSpeed(disturbance.speed);
      return shape({ ...state, linkSpeed: disturbance.speed });
  }
}

/** Presses the power button, without the BMC. */
export async function switchPower(lab: Lab, host: string, state: PowerState): Promise<void> {
  checkHost(lab, host);
  await ask(lab, { do: 'power', host, state });
}

/** Starts a server that was killed to stay dead, and mends nothing else. */
export function startServer(lab: Lab): Promise<void> {
  return ask(lab, { do: 'start', name: 'server' });
}

/** Puts everything back but guests: links, speeds, programs. Resolves when all hosts report again. */
export async function mend(lab: Lab): Promise<void> {
  await raise(lab.state);
  await ask(lab, { do: 'ensure' });
  await ask(lab, { do: 'ready', timeoutMs: 90_000 });
  await hostsUp(lab);
}

async function ask(lab: Lab, request: Parameters<typeof askSupervisor>[1]): Promise<void> {
  const answer = await askSupervisor(directoriesOf(lab.state.name).supervisorSocket, request, 35_000);
  if (answer) return;
  throw new UserError(
    'unavailable',
    `The supervisor of the lab '${lab.state.name}' does not run.`,
    `Repair the lab with: drover lab up --name ${lab.state.name}`,
  );
}

function checkHost(lab: Lab, host: string): void {
  const known = hostNames(lab.state.hosts);
  if (known.includes(host)) return;
  throw new UserError('not-found', `The lab has no host '${host}'.`, `Its hosts are ${known.join(', ')}.`);
}

async function killQemu(lab: Lab, name: string, side: 'source' | 'target'): Promise<void> {
  const vm = await lab.client.getVm({ params: { vm: name } });
  const migration =
    vm.migration === null ? undefined : await lab.client.getMigration({ params: { migration: vm.migration } });
  const host = side === 'target' ? migration?.target : (migration?.source ?? vm.host);
  if (host === undefined) {
    throw new UserError(
      'wrong-state',
      `${vm.name} does not move, so it has no target.`,
      'Leave --side out to kill it where it runs.',
    );
  }
  const found = (await guestProcesses(lab.state, vm.id)).filter((guest) => guest.host === host);
  if (found.length === 0) {
    throw new UserError(
      'wrong-state',
      `No QEMU of ${vm.name} runs on ${host}.`,
      'See where it runs: drover vm show ' + vm.name,
    );
  }
  await endAll(
    found.flatMap(({ pid }) => processId(pid) ?? []),
    0,
  );
}
