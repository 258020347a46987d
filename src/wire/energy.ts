/** Sleep of hosts and energy over the API: rows of the endpoint table, and what they carry. */
import { z } from 'zod';
import { macPattern } from '../model/sleep.ts';

const timeMs = z.number().describe('ms since the epoch');
const hostParams = z.object({ host: z.string().min(1).max(100).describe('name or id') });
const because = z.string().min(1).max(500);
export const watts = z.number().min(0).max(100_000);

const sleepWay = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('off') }).strict(),
  z
    .object({
      kind: z.literal('suspend'),
      macs: z
        .array(z.string().regex(macPattern, 'is to be written as 52:54:00:aa:bb:cc'))
        .max(16)
        .default([])
        .describe('cards that a magic packet wakes; none given: all that the host names'),
    })
    .strict(),
]);

export const sleepView = z.object({
  host: z.string(),
  way: sleepWay.nullable().describe('off: by its power controller; suspend: to memory; null: it never sleeps'),
  state: z.enum(['awake', 'going-to-sleep', 'asleep', 'waking', 'wake-failed']),
  since: timeMs,
  by: z.string().nullable(),
  because: z.string().nullable(),
  drill: z.boolean(),
  proof: z
    .object({ at: timeMs, by: z.enum(['drill', 'wake']), validUntil: timeMs })
    .nullable()
    .describe('when it was woken last'),
  readyWithinMs: z.number().nullable().describe('a woken host reports within this, by what was learned'),
  readyMs: z.array(z.number()).describe('the last times, the newest last'),
  lastFailure: z.object({ at: timeMs, says: z.string() }).nullable(),
  refusal: z.string().nullable().describe('why it may not be sent to sleep now'),
  watts: z.object({ idle: z.number(), max: z.number() }).nullable().describe('as set; null: by its cores'),
});
export type SleepView = z.infer<typeof sleepView>;

const whOf = z.number().describe('Wh');

export const energyView = z.object({
  since: timeMs.describe('begin of the first day that is counted'),
  until: timeMs,
  by: z.enum(['host', 'vm']),
  total: z.object({
    usedWh: whOf,
    measuredWh: whOf.describe('of it, measured at the whole machine'),
    savedWh: whOf.describe('what sleeping hosts would have drawn idle'),
    alwaysOnWh: whOf.describe('used and saved'),
  }),
  rows: z.array(
    z.object({
      id: z.string(),
      name: z.string(),
      wh: whOf,
      savedWh: whOf.nullable().describe('hosts only'),
      asleepMs: z.number().nullable().describe('hosts only'),
      idleWatts: z.number().nullable().describe('hosts only: with little to do, as measured; null: never measured'),
      known: z.string().nullable().describe('hosts only: measured or modelled, e.g. "BMC" or "BMC 80 %, model 20 %"'),
    }),
  ),
  says: z.array(z.string()).describe('what is measured, what is modelled'),
});
export type EnergyView = z.infer<typeof energyView>;

const powerChoices = z.array(z.object({ host: z.string(), because: z.string() }));
export const powerPlanView = z.object({ sleep: powerChoices, wake: powerChoices, keep: powerChoices });
export type PowerPlanView = z.infer<typeof powerPlanView>;

export const energyEndpoints = {
  getEnergy: {
    method: 'GET',
    path: '/energy',
    role: 'viewer',
    summary: 'Energy of hosts or VMs in whole days, and what sleep saved',
    query: z
      .object({
        since: z.coerce.number().int().min(0).optional().describe('ms since the epoch; seven days back unless given'),
        by: z.enum(['host', 'vm']).default('host'),
      })
      .strict(),
    reply: energyView,
  },
  getPowerPlan: {
    method: 'GET',
    path: '/energy/plan',
    role: 'viewer',
    summary: 'Which hosts may sleep now, which must be woken, and why; nothing is done',
    query: z
      .object({
        tolerate: z.coerce
          .number()
          .int()
          .min(0)
          .max(100)
          .optional()
          .describe('dead hosts to have room for; else as set'),
      })
      .strict(),
    reply: powerPlanView,
  },
  getHostSleep: {
    method: 'GET',
    path: '/hosts/:host/sleep',
    role: 'viewer',
    summary: 'How a host sleeps, where it stands, and whether it may',
    params: hostParams,
    reply: sleepView,
  },
  setHostSleep: {
    method: 'PUT',
    path: '/hosts/:host/sleep',
    role: 'admin',
    summary: 'Say how a host sleeps and is woken; what was proven of another way counts no more',
    params: hostParams,
    body: z.object({ way: sleepWay.nullable() }).strict(),
    reply: sleepView,
  },
  sendHostToSleep: {
    method: 'POST',
    path: '/hosts/:host/sleep',
    role: 'operator',
    summary: 'Send a host without guests to sleep; a drill wakes it at once and proves that it can be woken',
    params: hostParams,
    body: z
      .object({
        drill: z.boolean().default(false),
        because: because.default('asked for'),
        dryRun: z.boolean().default(false).describe('check everything, change nothing'),
      })
      .strict(),
    reply: sleepView,
    status: 202,
  },
  wakeHost: {
    method: 'POST',
    path: '/hosts/:host/wake',
    role: 'operator',
    summary: 'Wake a host; one that is awake stays so',
    params: hostParams,
    body: z
      .object({
        because: because.default('asked for'),
        dryRun: z.boolean().default(false).describe('change nothing'),
      })
      .strict(),
    reply: sleepView,
    status: 202,
  },
  setHostWatts: {
    method: 'PUT',
    path: '/hosts/:host/watts',
    role: 'admin',
    summary: 'Say what a host draws that cannot be measured: idle, and with all cores busy',
    params: hostParams,
    body: z.object({ watts: z.object({ idle: watts, max: watts }).strict().nullable() }).strict(),
    reply: sleepView,
  },
} as const;
