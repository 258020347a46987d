/** What is told as it happens. Not here: how a stream is read (server-sent-events.ts). */
import { z } from 'zod';
import { decisionView, planView } from './balance.ts';
import { drainView } from './drains.ts';
import { ref, timeMs, type Endpoint } from './endpoint.ts';
import { hostView } from './hosts.ts';
import { migrationSample, migrationView } from './migrations.ts';
import { recoveryView } from './recovery.ts';
import { taskEvent } from './tasks.ts';
import { vmView } from './vms.ts';

/** What the event stream carries. `id` is the store's revision; samples and loads have none and cannot be asked for again. */
export const eventView = z.discriminatedUnion('type', [
  z.object({ type: z.literal('host'), at: timeMs, says: z.string(), host: hostView }),
  z.object({ type: z.literal('vm'), at: timeMs, says: z.string(), vm: vmView }),
  z.object({ type: z.literal('vm-removed'), at: timeMs, says: z.string(), id: z.string(), name: z.string() }),
  z.object({ type: z.literal('host-removed'), at: timeMs, says: z.string(), id: z.string(), name: z.string() }),
  z.object({ type: z.literal('migration'), at: timeMs, says: z.string(), migration: migrationView }),
  z.object({ type: z.literal('recovery'), at: timeMs, says: z.string(), recovery: recoveryView }),
  z.object({ type: z.literal('drain'), at: timeMs, says: z.string(), drain: drainView }),
  taskEvent,
  z.object({ type: z.literal('plan'), at: timeMs, says: z.string(), plan: planView }),
  z.object({ type: z.literal('decision'), at: timeMs, says: z.string(), decision: decisionView }),
  z.object({ type: z.literal('sample'), at: timeMs, says: z.string(), sample: migrationSample }),
  z
    .object({
      type: z.literal('loads'),
      at: timeMs,
      says: z.string(),
      hosts: z.array(z.object({ host: z.string(), cpuLoad: z.number(), memoryUsedMiB: z.number() })),
      vms: z.array(z.object({ vm: z.string(), cpuCores: z.number(), memoryResidentMiB: z.number() })),
    })
    .describe('every two seconds to who asks for loads: those that have changed, by id'),
  z.object({ type: z.literal('alarm'), at: timeMs, says: z.string(), about: z.string() }),
]);
export type EventView = z.infer<typeof eventView>;

export const eventEndpoints = {
  listEvents: {
    method: 'GET',
    path: '/events',
    role: 'viewer',
    summary: 'Changes as server-sent events; Last-Event-ID resumes',
    query: z
      .object({
        migration: ref.optional(),
        samples: z.enum(['true', 'false']).default('true'),
        loads: z.enum(['true', 'false']).default('false'),
      })
      .strict(),
    reply: eventView,
    stream: 'events',
  },
} as const satisfies Record<string, Endpoint>;
