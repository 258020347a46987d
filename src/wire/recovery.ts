/** Lost hosts over the API: what proved them dead and what became of their VMs. */
import { z } from 'zod';
import { after } from './endpoint.ts';

const ref = z.string().min(1).max(100).describe('name or id');
const timeMs = z.number().describe('ms since the epoch');

export const fenceProof = z.enum(['power-off', 'lease-taken', 'boot-id', 'word']);

const tookMs = z.number().nullable();
export const recoveryView = z.object({
  id: z.string(),
  host: z.string().describe('name of the host that was lost'),
  proof: fenceProof,
  by: z.string(),
  because: z.string(),
  silentSince: timeMs.nullable().describe('its last report'),
  detectedAt: timeMs,
  fencedAt: timeMs,
  endedAt: timeMs.nullable(),
  detectMs: tookMs.describe('from its last report until it was seen to be silent'),
  fenceMs: tookMs.describe('from then until it was proven to run nothing'),
  vms: z.array(
    z.object({
      vm: z.string().describe('id'),
      name: z.string(),
      priority: z.number(),
      kind: z.enum(['restart', 'move', 'left']),
      state: z.string().describe('what the VM does now'),
      says: z.string().nullable(),
      target: z.string().nullable().describe('name of the host where it was started again'),
      placedAt: timeMs.nullable(),
      startedAt: timeMs.nullable(),
      placeMs: tookMs.describe('from fencing until the order to start'),
      bootMs: tookMs.describe('from the first order to start until it ran, waiting for disk locks included'),
      totalMs: tookMs.describe('from the last report of its host until it ran again'),
    }),
  ),
});
export type RecoveryView = z.infer<typeof recoveryView>;

export const recoveryEndpoints = {
  listRecoveries: {
    method: 'GET',
    path: '/recoveries',
    role: 'viewer',
    summary: 'Lost hosts and what became of their VMs, newest first',
    query: z.object({ limit: z.coerce.number().int().min(1).max(200).default(50), after }).strict(),
    reply: z.array(recoveryView),
  },
  getRecovery: {
    method: 'GET',
    path: '/recoveries/:recovery',
    role: 'viewer',
    summary: 'One lost host',
    params: z.object({ recovery: ref }),
    reply: recoveryView,
  },
} as const;
