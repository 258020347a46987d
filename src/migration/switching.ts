/**
 * What telling a running move to switch would do now: a held one completes, one that may end in post-copy goes over to it. Pure;
 * API, dashboard and CLI ask the same function. When a move switches by itself stands in steer.ts.
 */
import type { UserErrorCode } from '../model/failure.ts';
import type { HostInventory } from '../model/host.ts';
import type { Migration } from '../model/migration.ts';
import { isEnd, phases } from './phases.ts';
import { mayUsePostCopy } from './techniques.ts';

export type Switch =
  | { readonly to: 'completion' | 'post-copy'; readonly asked: boolean }
  | { readonly to: null; readonly code: UserErrorCode; readonly because: string; readonly hint: string };

export interface Side {
  readonly name: string;
  readonly inventory: HostInventory;
}

/** `because` goes on from "migration … of web1 cannot be switched: ". */
export function switchOf(migration: Migration, source: Side, target: Side): Switch {
  const { phase, technique, policy, hold, cancelRequestedAt, giveUp, switchRequestedAt } = migration;
  const no = (because: string, hint: string, code: UserErrorCode = 'wrong-state'): Switch => ({
    to: null,
    code,
    because,
    hint,
  });
  if (isEnd(phase)) return no(`it has ended already (${phase})`, 'Nothing is left to switch.');
  if (technique === 'cold') return no('a cold move sends no memory', 'Wait for its end.');
  if (cancelRequestedAt !== null || giveUp !== null) return no('it is being cancelled', 'Wait for its end.');
  if (hold !== undefined) return { to: 'completion', asked: hold.switchRequestedAt !== null };
  if (!phases[phase].switchable) {
    const early = phase === 'reserved';
    return no(
      phases[phase].says,
      early ? 'Wait for its warm-up (drover migration watch).' : 'Wait for its end: its memory has been sent.',
    );
  }
  if (policy.parallelStreams > 0)
    return no('it sends by parallel streams, over which QEMU has no post-copy', endAnew, 'policy-conflict');
  if (!mayUsePostCopy(technique, policy, { postCopy: { ok: true } }))
    return no(
      `its policy forbids post-copy (${technique}, not converging: ${policy.whenNotConverging})`,
      endAnew,
      'policy-conflict',
    );
  const { postCopy } = target.inventory;
  if (!postCopy.ok)
    return no(`${target.name} cannot receive by post-copy: ${postCopy.reason}`, endAnew, 'post-copy-unavailable');
  if (source.inventory.switchesOnOrder !== true)
    return no(`the agent of ${source.name} is too old to be told`, `Upgrade the agent of ${source.name}.`);
  return { to: 'post-copy', asked: switchRequestedAt !== undefined || migration.switchedToPostCopy !== null };
}

const endAnew = 'Let it go on, or cancel it and begin anew with --technique hybrid.';
