/**
 * The five techniques: what each asks of the hypervisor, and which hosts and policies it can live with.
 * Method: the survey behind the mission (cold, pre-copy, post-copy) and QEMU's migration documentation (capabilities).
 */
import type { HostInventory } from '../model/host.ts';
import { UserError } from '../model/failure.ts';
import type { Migration, PhaseName, Policy, Technique } from '../model/migration.ts';

export const defaultPolicy: Policy = {
  maxDowntimeMs: 300,
  maxBandwidthBytesPerSecond: null,
  deadlineMs: null,
  autoConverge: false,
  parallelStreams: 0,
  compression: 'none',
  whenNotConverging: 'post-copy',
  shutdownTimeoutMs: 60_000,
  forceOff: false,
};

const preCopyPath: readonly PhaseName[] = ['warming-up', 'armed', 'stop-and-copy', 'resumed', 'completed'];
const postCopyPath: readonly PhaseName[] = [
  'warming-up',
  'suspended',
  'state-transferred',
  'resumed-with-faults',
  'pre-paging',
  'recovering',
  'completed',
];

/** The phases a technique may pass through. Hybrid and auto may end either way: QEMU finishes an idle guest in warm-up. */
export const pathOf = {
  'pre-copy': [...preCopyPath, ...postCopyPath], // policy may let a pre-copy that does not converge switch
  'post-copy': [...preCopyPath, ...postCopyPath],
  hybrid: [...preCopyPath, ...postCopyPath],
  auto: [...preCopyPath, ...postCopyPath],
  cold: ['powering-off', 'copying', 'powering-on', 'completed'],
} as const satisfies Record<Technique, readonly PhaseName[]>;

/** May this move end in post-copy, by its technique and policy? Then both sides arm QEMU's postcopy-ram. */
export function mayUsePostCopy(technique: Technique, policy: Policy, target: Pick<HostInventory, 'postCopy'>): boolean {
  if (!target.postCopy.ok || policy.parallelStreams > 0) return false;
  switch (technique) {
    case 'post-copy':
    case 'hybrid':
      return true;
    case 'auto':
    case 'pre-copy':
      return policy.whenNotConverging === 'post-copy';
    case 'cold':
      return false;
  }
}

/**
 * The policy as it will be carried out: what the user left open is filled in by technique.
 * A plain pre-copy asked for by name stays one: it fails rather than change into something nobody asked for.
 */
export function completePolicy(technique: Technique, given: Partial<Policy>): Policy {
  const whenNotConverging = given.whenNotConverging ?? (technique === 'pre-copy' ? 'fail' : 'post-copy');
  return { ...defaultPolicy, ...given, whenNotConverging };
}

/**
 * Refuses what cannot work together, before anything is touched.
 * @throws UserError policy-conflict, post-copy-unavailable, live-unsafe
 */
export function checkTechnique(
  technique: Technique,
  policy: Policy,
  source: { name: string; inventory: HostInventory },
  target: { name: string; inventory: HostInventory },
): void {
  const conflict = (message: string, hint: string) => new UserError('policy-conflict', message, hint);
  const postCopyAsked = technique === 'post-copy' || technique === 'hybrid';
  if (policy.parallelStreams > 0 && postCopyAsked) {
    throw conflict(
      `Parallel streams cannot be used with ${technique}: QEMU has no post-copy over several streams.`,
      'Leave parallel streams out, or use --technique pre-copy.',
    );
  }
  if (policy.compression === 'zstd' && policy.parallelStreams === 0) {
    throw conflict(
      'zstd compression needs parallel streams.',
      'Add --parallel-streams 2, or use --compression xbzrle.',
    );
  }
  if (policy.compression === 'xbzrle' && policy.parallelStreams > 0) {
    throw conflict(
      'xbzrle compression cannot be used with parallel streams.',
      'Use --compression zstd, or one stream.',
    );
  }
  if (technique === 'cold') return;
  for (const side of [source, target]) {
    if (!side.inventory.liveMigration.ok) {
      throw new UserError(
        'live-unsafe',
        `${side.name} cannot take part in a live move: ${side.inventory.liveMigration.reason}.`,
        'Use --technique cold, or mend the host (drover doctor says how).',
      );
    }
  }
  if (postCopyAsked && !target.inventory.postCopy.ok) {
    throw new UserError(
      'post-copy-unavailable',
      `${target.name} cannot receive by post-copy: ${target.inventory.postCopy.reason}.`,
      'Use --technique pre-copy, or mend the host (drover doctor says how).',
    );
  }
}

/** Did, or will, this migration end in post-copy? Known once the guest was stopped for it. */
export function endedInPostCopy(migration: Migration): boolean {
  return migration.evidence.stopped?.for === 'post-copy' || migration.evidence.resumed?.withFaults === true;
}
