/** How a move can fail on its source's side, in words for the user: what happened, to which VM, what to do next. */
import type { GuestGone } from '../hypervisor/hypervisor.ts';
import type { Failure } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';

export function targetUnreachable(peer: Endpoint): Failure {
  return {
    code: 'target-unreachable',
    message: `The agent of the target cannot be reached at ${peer.address}:${peer.port}.`,
    hint: 'Check that agent and the network between the hosts, then try again.',
  };
}

export function sourceRefused(vmName: string, hostName: string, detail: string): Failure {
  return {
    code: 'source-refused',
    message: `QEMU on ${hostName} would not send ${vmName}.`,
    hint: 'The detail is what QEMU said. The guest runs on.',
    detail,
  };
}

/** Sent whole, but there was nobody to let it run. */
export function notHandedOver(vmName: string): Failure {
  return {
    code: 'target-unreachable',
    message: `${vmName} could not be handed over to the agent of the target; the guest went on here.`,
    hint: 'Check the target host, then try again.',
  };
}

export function brokeOff(vmName: string, words: string): Failure {
  return {
    code: /failed to connect|no route|unreachable|refused/i.test(words) ? 'target-unreachable' : 'target-died',
    message: `The transfer of ${vmName} broke off${words ? `: ${words}` : ''}.`,
    hint: 'The guest runs on at the source. Look at the target host, then try again.',
  };
}

/** `when` completes the sentence: 'in warm-up'. */
export function linkLost(hostName: string, when: string): Failure {
  return {
    code: 'link-lost',
    message: `The migration link from ${hostName} carried nothing more ${when}.`,
    hint: 'The guest runs on at the source. Check the migration network, then try again.',
  };
}

export function sourceGone(vmName: string, hostName: string, gone: GuestGone): Failure {
  const poweredOff = gone.how === 'powered-off';
  return {
    code: poweredOff ? 'guest-powered-off' : 'source-died',
    message: poweredOff
      ? `${vmName} shut itself down while it was moved.`
      : `QEMU of ${vmName} on ${hostName} ended while it was moved.`,
    hint: `Start it again: drover vm start ${vmName}`,
    ...(gone.words ? { detail: gone.words } : {}),
  };
}

export function targetNeverRan(vmName: string): Failure {
  return {
    code: 'target-died',
    message: `The copy of ${vmName} on the target was gone before it ran; the guest went on at the source.`,
    hint: 'Look at the target host, then try again.',
  };
}
