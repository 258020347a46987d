/** Drains over the API: what is asked, what is shown, and their rows of the endpoint table (endpoints.ts). */
import { z } from 'zod';
import { after } from './endpoint.ts';

const timeMs = z.number().describe('ms since the epoch');
const movesAtOnce = z
  .number()
  .int()
  .min(1)
  .max(64)
  .nullable()
  .default(null)
  .describe('moves that run at the same time; null: 2, or as the drain that is under way has it');
const dryRun = z.boolean().default(false).describe('say what it would be, change nothing');

export const drainBody = z
  .object({
    because: z.string().min(1).max(500).nullable().default(null),
    movesAtOnce,
    allowCold: z
      .boolean()
      .nullable()
      .default(null)
      .describe('VMs that cannot move live are shut down and started elsewhere'),
    dryRun,
  })
  .strict();
export type DrainBody = z.input<typeof drainBody>;

export const undrainBody = z.object({ movesAtOnce, dryRun }).strict();

export const drainStates = ['draining', 'drained', 'returning', 'undrained', 'cancelled'] as const;

const estimate = z.object({ moves: z.number().int(), bytes: z.number(), ms: z.number() });

export const drainedVmStates = [
  'queued',
  'moving',
  'stuck',
  'off',
  'left',
  'returning',
  'back',
  'stays',
  'gave-up',
  'remained',
] as const;

export const drainView = z.object({
  id: z.string(),
  host: z.string().describe('name of the host'),
  state: z.enum(drainStates),
  says: z.string(),
  by: z.string(),
  because: z.string(),
  startedAt: timeMs,
  emptyAt: timeMs.nullable().describe('when the last guest had left'),
  endedAt: timeMs.nullable().describe('when it was undrained or cancelled'),
  movesAtOnce: z.number().int(),
  allowCold: z.boolean(),
  cordoned: z.boolean(),
  estimate: estimate.describe('as it was when the drain began'),
  returnEstimate: estimate.nullable().describe('as it was when its VMs were asked back'),
  tookMs: z.number().nullable().describe('until the host was empty'),
  etaMs: z.number().nullable().describe('until it is done, as of now; null: nothing is to be done, or nobody can say'),
  total: z.number().int().describe('VMs that are to move'),
  done: z.number().int().describe('of these, those that have'),
  remaining: z.number().int().describe('guests that are on the host'),
  blocked: z
    .object({ since: timeMs, says: z.string(), next: z.string() })
    .nullable()
    .describe('nothing moves and nothing will by itself'),
  vms: z.array(
    z.object({
      vm: z.string().describe('id'),
      name: z.string(),
      priority: z.number(),
      memoryMiB: z.number(),
      state: z.enum(drainedVmStates),
      host: z.string().describe('where it is now'),
      to: z.string().nullable().describe('where it goes, or is planned to go'),
      technique: z.string().nullable(),
      migration: z.string().nullable().describe('its open move'),
      failures: z.number().int(),
      since: timeMs.nullable(),
      says: z.string().nullable(),
      next: z.string().nullable().describe('what can be done'),
    }),
  ),
});
export type DrainView = z.infer<typeof drainView>;

const hostParams = z.object({ host: z.string().min(1).max(100).describe('name or id') });

export const drainRows = {
  drainHost: {
    method: 'POST',
    path: '/hosts/:host/drain',
    role: 'operator',
    idempotent: true,
    summary: 'Cordon a host and let its VMs leave; joins a drain that is under way',
    params: hostParams,
    body: drainBody,
    reply: drainView,
    status: 202,
  },
  getHostDrain: {
    method: 'GET',
    path: '/hosts/:host/drain',
    role: 'viewer',
    summary: 'The newest drain of a host',
    params: hostParams,
    reply: drainView,
  },
  cancelDrain: {
    method: 'POST',
    path: '/hosts/:host/drain/cancel',
    role: 'operator',
    summary: 'Stop emptying it, or bringing back; what has moved stays where it is',
    params: hostParams,
    reply: drainView,
    status: 202,
  },
  undrainHost: {
    method: 'POST',
    path: '/hosts/:host/undrain',
    role: 'operator',
    summary: 'Uncordon a host and bring back the VMs that its drain took away',
    params: hostParams,
    body: undrainBody,
    reply: drainView,
    status: 202,
  },
  listDrains: {
    method: 'GET',
    path: '/drains',
    role: 'viewer',
    summary: 'Drains, newest first',
    query: z.object({ limit: z.coerce.number().int().min(1).max(200).default(50), after }).strict(),
    reply: z.array(drainView),
  },
  getDrain: {
    method: 'GET',
    path: '/drains/:drain',
    role: 'viewer',
    summary: 'One drain, VM by VM',
    params: z.object({ drain: z.string().min(1).max(100).describe('id') }),
    reply: drainView,
  },
} as const;
