/** The distributor over the API: settings, plans and what came of their moves, and the rows of the endpoint table for them. */
import { z } from 'zod';
import { balanceModes, distributionGoals } from '../model/distribution.ts';
import { techniques } from '../model/migration.ts';
import { after, type Endpoint } from './endpoint.ts';

const timeMs = z.number().describe('ms since the epoch');
const minute = z.number().int().min(0).max(1_439).describe('minute of the day');
const mode = z
  .enum(balanceModes)
  .describe('off: nothing; manual: proposes; automatic: does it; shadow: notes what it would have done');
const level = z.number().int().min(1).max(5).describe('1: a move must bring much, 5: takes any gain');
const hourMs = 3_600_000;

const goal = z
  .enum(distributionGoals)
  .describe('balance: over all hosts that are awake; consolidate: on few hosts, the others sleep');
const stepState = z.enum(['due', 'moving', 'done', 'failed', 'left']);

export const balanceSettingsShape = {
  mode,
  goal,
  level,
  quietHours: z
    .array(z.object({ from: minute, to: minute.or(z.literal(1_440)) }).strict())
    .max(10)
    .describe('then nothing is begun by itself'),
  timeZone: z.string().min(1).max(100).describe('of the quiet hours, e.g. Europe/Berlin'),
  movesAtOnce: z.number().int().min(1).max(1_000),
  movesPerHost: z.number().int().min(1).max(16).describe('that one host sends and receives at once'),
  movesPerHour: z.number().int().min(1).max(10_000).describe('that are begun by themselves'),
  dwellMs: z
    .number()
    .int()
    .min(0)
    .max(168 * hourMs)
    .describe('a VM that was moved is left alone for so long, a host that was woken stays awake'),
  unevenForMs: z
    .number()
    .int()
    .min(0)
    .max(24 * hourMs)
    .describe('a host must stand out for so long'),
  measureAfterMs: z
    .number()
    .int()
    .min(10_000)
    .max(24 * hourMs)
    .describe('then the gain of moves is measured'),
  hostFailuresTolerated: z.number().int().min(0).max(100),
  vcpuRatio: z.number().min(0.1).max(1_000).describe('virtual CPUs per CPU of a host, at most'),
  cpuLimit: z.number().min(0.05).max(1).describe("share of a host's CPUs that guests may use after a move there"),
};

/** What is left out stays. */
export const balanceChanges = z
  .object(balanceSettingsShape)
  .partial()
  .strict()
  .refine((changes) => Object.keys(changes).length > 0, 'nothing is to be changed');
export type BalanceChanges = z.input<typeof balanceChanges>;

const moveForecast = z.object({
  technique: z.enum(techniques),
  totalMs: z.number(),
  downtimeMs: z.number(),
  bytes: z.number(),
});

const scoreView = z
  .object({
    total: z.number(),
    parts: z.array(z.object({ name: z.string(), weight: z.number(), value: z.number() })),
  })
  .describe('smaller is better; the sum of weight times value');

export const planView = z.object({
  id: z.string().nullable().describe('null: it was only looked at, and is not kept'),
  goal: z.enum(['balance', 'consolidate', 'drain', 'failover', 'place']),
  origin: z.enum(['loop', 'person']),
  because: z.string(),
  state: z.enum(['proposed', 'running', 'shadow', 'done', 'stopped', 'cancelled', 'dismissed', 'expired']),
  stateSays: z.string().nullable(),
  createdAt: timeMs,
  endedAt: timeMs.nullable(),
  moves: z.array(
    z.object({
      vm: z.string().describe('name'),
      from: z.string(),
      to: z.string(),
      reason: z.string(),
      hop: z.boolean().describe('it makes room and goes on from there'),
      wave: z.number(),
      gain: z.number(),
      forecast: moveForecast,
      state: stepState,
      migration: z.string().nullable(),
    }),
  ),
  power: z
    .array(z.object({ host: z.string(), to: z.enum(['wake', 'sleep']), reason: z.string(), state: stepState }))
    .describe('hosts that are woken before the moves, or sent to sleep after them'),
  keeps: z
    .array(z.object({ host: z.string(), because: z.string() }))
    .describe('hosts that stay on, of a consolidation'),
  refused: z.array(z.object({ vm: z.string(), wanted: z.string().nullable(), rule: z.string(), says: z.string() })),
  emptied: z.array(z.string()).describe('hosts without guests after it'),
  score: z.object({ before: scoreView, after: scoreView }),
});
export type PlanView = z.infer<typeof planView>;

export const decisionView = z.object({
  id: z.string(),
  plan: z.string(),
  automatic: z.boolean(),
  migration: z.string(),
  vm: z.string().describe('name'),
  from: z.string(),
  to: z.string(),
  reason: z.string(),
  at: timeMs,
  expectedGain: z.number().nullable(),
  expected: moveForecast,
  measured: z
    .object({ at: timeMs, gain: z.number().nullable(), paid: z.boolean().nullable(), says: z.string() })
    .nullable()
    .describe('null: not yet'),
  cost: z
    .object({
      phase: z.string(),
      totalMs: z.number().nullable(),
      downtimeMs: z.number().nullable(),
      bytes: z.number().nullable(),
    })
    .nullable()
    .describe('of its migration; null: that is not on record any more'),
});
export type DecisionView = z.infer<typeof decisionView>;

export const balanceView = z.object({
  settings: z.object(balanceSettingsShape),
  caution: z.object({
    factor: z.number().describe('1: none of its moves has failed to pay lately'),
    whole: z.number().describe('of level and experience, as the planner is given it'),
  }),
  cannotBegin: z.string().nullable().describe('why nothing is begun now'),
  loopWaits: z.string().nullable().describe('why nothing is begun by itself now'),
  says: z.string().nullable().describe('what was found last'),
  standsOut: z.array(z.object({ says: z.string(), forMs: z.number() })),
  hosts: z.array(
    z.object({
      name: z.string(),
      state: z.string(),
      vms: z.number(),
      cpuCores: z.number().describe('that its guests use, smoothed'),
      cpus: z.number(),
      memoryMiB: z.number().describe('of its guests'),
      capacityMiB: z.number(),
    }),
  ),
  plan: planView.nullable().describe('the one that is being carried out'),
  proposed: z.array(z.string()).describe('ids of plans that wait for a person'),
});
export type BalanceView = z.infer<typeof balanceView>;

const planParams = z.object({ plan: z.string().min(1).max(100) });
const limit = z.coerce.number().int().min(1).max(1_000).default(50);
const says = { plan: planView } as const;

export const balanceEndpoints = {
  getBalance: {
    method: 'GET',
    path: '/balance',
    role: 'viewer',
    versioned: true,
    summary: 'How load is spread, what the distributor does and waits for, and its settings',
    reply: balanceView,
  },
  setBalance: {
    method: 'PATCH',
    path: '/balance',
    role: 'operator',
    versioned: true,
    summary: 'Change settings of the distributor',
    body: balanceChanges,
    reply: balanceView,
  },
  cancelBalance: {
    method: 'POST',
    path: '/balance/cancel',
    role: 'operator',
    summary: 'Begin nothing more of the plan that is being carried out',
    body: z.object({ moves: z.boolean().default(false).describe('cancel what is under way as well') }).strict(),
    reply: says.plan,
  },
  listDecisions: {
    method: 'GET',
    path: '/balance/decisions',
    role: 'viewer',
    summary: 'Moves of the distributor with what was expected and what came, newest first',
    query: z.object({ limit, after }).strict(),
    reply: z.array(decisionView),
  },
  listPlans: {
    method: 'GET',
    path: '/plans',
    role: 'viewer',
    summary: 'Plans, newest first',
    query: z.object({ state: z.enum(['proposed', 'shadow']).optional(), limit, after }).strict(),
    reply: z.array(planView),
  },
  makePlan: {
    method: 'POST',
    path: '/plans',
    role: 'operator',
    idempotent: true,
    summary: 'Make a plan; it waits to be accepted. With dryRun it is only shown',
    body: z
      .object({
        goal: goal.default('balance'),
        maxMoves: z.number().int().min(1).max(500).default(100),
        dryRun: z.boolean().default(false),
      })
      .strict(),
    reply: planView,
  },
  getPlan: {
    method: 'GET',
    path: '/plans/:plan',
    role: 'viewer',
    summary: 'One plan',
    params: planParams,
    reply: planView,
  },
  acceptPlan: {
    method: 'POST',
    path: '/plans/:plan/accept',
    role: 'operator',
    summary: 'Carry a proposed plan out',
    params: planParams,
    reply: planView,
    status: 202,
  },
  dismissPlan: {
    method: 'POST',
    path: '/plans/:plan/dismiss',
    role: 'operator',
    summary: 'Drop a proposed plan; the same is not proposed again for a while',
    params: planParams,
    reply: planView,
  },
} as const satisfies Record<string, Endpoint>;
