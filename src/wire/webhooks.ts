/** Webhooks over the API: addresses that are told of events, and what became of each delivery. Not here: how it is sent (control/webhooks.ts). */
import { z } from 'zod';
import { after, timeMs, type Endpoint } from './endpoint.ts';

const pattern = z
  .string()
  .max(100)
  .regex(/^(\*|[a-z-]+\.(\*|[a-z-]+))$/, 'a pattern is *, or like migration.* or drain.drained')
  .describe('e.g. `migration.*`, `failure.*`, `drain.drained`, `*`');

export const webhookView = z.object({
  id: z.string(),
  url: z.string(),
  on: z.array(z.string()),
  waiting: z.number().int().describe('deliveries that are still to be made'),
  lastDeliveredAt: timeMs.nullable(),
  lastError: z.string().nullable().describe('of the delivery that waits for its next attempt, or was given up last'),
  createdAt: timeMs,
  createdBy: z.string(),
});
export type WebhookView = z.infer<typeof webhookView>;

export const deliveryView = z.object({
  id: z.string(),
  topic: z.string(),
  at: timeMs,
  state: z.enum(['waiting', 'delivered', 'given-up']),
  attempts: z.number().int(),
  nextAt: timeMs.describe('when it is tried next; of one that is over, when it ended'),
  status: z.number().int().nullable().describe('HTTP status of the last answer'),
  says: z.string().nullable().describe('why the last attempt did not succeed'),
});
export type DeliveryView = z.infer<typeof deliveryView>;

const params = z.object({ webhook: z.string().min(1).max(100).describe('id') });

export const webhookEndpoints = {
  listWebhooks: {
    method: 'GET',
    path: '/webhooks',
    role: 'admin',
    summary: 'All webhooks',
    reply: z.array(webhookView),
  },
  createWebhook: {
    method: 'POST',
    path: '/webhooks',
    role: 'admin',
    idempotent: true,
    summary: 'Tell an address of events from now on; the secret of its signatures is in this answer and never again',
    body: z
      .object({
        url: z
          .string()
          .max(2_000)
          .regex(/^https?:\/\/[^\s/]+/, 'is to be http:// or https://'),
        on: z.array(pattern).min(1).max(50),
        secret: z.string().min(16).max(200).nullable().default(null).describe('null: one is made'),
      })
      .strict(),
    reply: webhookView.extend({ secret: z.string().nullable().describe('null: the same request came before') }),
    status: 201,
  },
  removeWebhook: {
    method: 'DELETE',
    path: '/webhooks/:webhook',
    role: 'admin',
    summary: 'Tell it no more; what waits is dropped',
    params,
    reply: webhookView,
  },
  testWebhook: {
    method: 'POST',
    path: '/webhooks/:webhook/test',
    role: 'admin',
    summary: 'Send it a `webhook.test` now, once',
    params,
    reply: deliveryView,
  },
  listDeliveries: {
    method: 'GET',
    path: '/webhooks/:webhook/deliveries',
    role: 'admin',
    summary: 'What was sent or is still to be, newest first',
    params,
    query: z
      .object({
        state: z.enum(['waiting', 'delivered', 'given-up']).optional(),
        limit: z.coerce.number().int().min(1).max(1_000).default(50),
        after,
      })
      .strict(),
    reply: z.array(deliveryView),
  },
} as const satisfies Record<string, Endpoint>;
