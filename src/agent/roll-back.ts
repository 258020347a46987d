/** The way back over the handover: only the source's part of it, and only with the target's proof. */
import type { Guest } from '../hypervisor/hypervisor.ts';
import type { MoveJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import { targetNeverRan } from './move-failures.ts';

/** Goes on here after all. Only with the proof that the target's copy is gone and never ran. */
export async function rollBack(context: AgentContext, guests: Guests, guest: Guest, job: MoveJob): Promise<void> {
  const part = guests.part(guest.key.vm);
  if (part.kind !== 'handed-over' || part.job.migration !== job.migration) return;
  await guest.continue();
  const failure = targetNeverRan(job.vmName);
  context.facts.migration({ migration: job.migration, at: context.clock.now(), kind: 'source-running', failure });
  guests.settle(guest.key.vm, { stayed: job.migration });
}
