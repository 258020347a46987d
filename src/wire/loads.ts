/** What a host or a VM carried in the last hour. What it carries now stands in its own view; what changes, in the events. */
import { z } from 'zod';
import { ref, timeMs, type Endpoint } from './endpoint.ts';

export const loadEndpoints = {
  getLoads: {
    method: 'GET',
    path: '/loads',
    role: 'viewer',
    summary: 'CPU of one host or one VM over the last hour, as means over half a minute; name one of them',
    query: z.object({ host: ref.optional(), vm: ref.optional() }).strict(),
    reply: z.object({
      id: z.string().describe('of the host or VM'),
      stepMs: z.number().describe('what one sample stands for; where nothing was reported there is none'),
      cpu: z
        .array(z.object({ at: timeMs, value: z.number() }))
        .describe('oldest first; of a host the share of its cores in use, of a VM cores in use'),
    }),
  },
} as const satisfies Record<string, Endpoint>;
