/** Moves over the API: what is shown of one, and what can be asked of it while it runs. Not here: how it begins (vms.ts). */
import { z } from 'zod';
import { failureCodes } from '../model/failure.ts';
import { phaseNames, techniques } from '../model/migration.ts';
import { after, ref, timeMs, type Endpoint } from './endpoint.ts';
import { forecastView } from './forecast.ts';
import { policyInput } from './policy.ts';

const measures = z.object({
  totalMs: z.number().nullable(),
  downtimeMs: z.number().nullable(),
  downtimeQemuMs: z.number().nullable(),
  blackoutMs: z.number().nullable(),
  bytes: z.number().nullable(),
  faults: z.number().nullable(),
  faultBlockedMs: z.number().nullable(),
  degradedMs: z.number().nullable(),
  throttlePercent: z.number().nullable(),
  firstPageMs: z.number().nullable(),
  recoveries: z
    .number()
    .nullable()
    .default(null)
    .describe('how often the link broke in post-copy and was joined again'),
  recoveringMs: z.number().nullable().default(null).describe('time without the link, all together'),
});

export const migrationSample = z.object({
  migration: z.string(),
  at: timeMs,
  phase: z.enum(phaseNames),
  round: z.number(),
  totalBytes: z.number(),
  remainingBytes: z.number(),
  sentBytes: z.number(),
  bandwidthBytesPerSecond: z.number(),
  dirtyBytesPerSecond: z.number(),
  downtimeLimitMs: z.number(),
  faults: z.number(),
  throttlePercent: z.number(),
  recovering: z
    .object({ since: timeMs, attempts: z.number(), lastError: z.string().nullable() })
    .optional()
    .describe('while a broken post-copy is joined again'),
});

export const migrationView = z.object({
  id: z.string(),
  vm: z.string().describe('id'),
  vmName: z.string(),
  source: z.string().describe('name of the host'),
  target: z.string().describe('name of the host'),
  technique: z.enum(techniques),
  endedInPostCopy: z.boolean(),
  switchedToPostCopy: z.object({ round: z.number(), because: z.string() }).nullable(),
  phase: z.enum(phaseNames),
  phaseSays: z.string(),
  cancellable: z.boolean(),
  switchable: z
    .enum(['completion', 'post-copy'])
    .nullable()
    .default(null)
    .describe('where `switch` would take it now; null: it is refused, or was asked for already'),
  ended: z.boolean(),
  guest: z.enum(['on-source', 'on-target', 'lost']).nullable().describe('where the guest is after a failure'),
  failure: z
    .object({ code: z.enum(failureCodes), message: z.string(), hint: z.string(), detail: z.string().optional() })
    .nullable(),
  hold: z
    .object({ until: timeMs, switchRequestedAt: timeMs.nullable() })
    .nullable()
    .describe('held ready instead of completing'),
  policy: policyInput.required(),
  why: z.array(z.object({ by: z.string(), text: z.string(), at: timeMs })),
  startedAt: timeMs,
  endedAt: timeMs.nullable(),
  rounds: z.array(
    z.object({
      round: z.number(),
      durationMs: z.number(),
      bytes: z.number(),
      dirtyPages: z.number(),
      bandwidthBytesPerSecond: z.number(),
    }),
  ),
  measures,
  forecast: forecastView.nullable().default(null).describe('what it was expected to cost when it began'),
  history: z.array(z.object({ phase: z.enum(phaseNames), at: timeMs, round: z.number().optional() })),
  sample: migrationSample.nullable().describe('the latest, while it runs'),
});
export type MigrationView = z.infer<typeof migrationView>;
export type MigrationSampleView = z.infer<typeof migrationSample>;

const migrationParams = z.object({ migration: ref });

export const migrationEndpoints = {
  listMigrations: {
    method: 'GET',
    path: '/migrations',
    role: 'viewer',
    summary: 'Migrations, newest first',
    query: z
      .object({
        vm: ref.optional(),
        open: z.enum(['true', 'false']).optional(),
        limit: z.coerce.number().int().min(1).max(1000).default(50),
        after,
      })
      .strict(),
    reply: z.array(migrationView),
  },
  getMigration: {
    method: 'GET',
    path: '/migrations/:migration',
    role: 'viewer',
    summary: 'One migration with rounds, phases and measures',
    params: migrationParams,
    reply: migrationView,
  },
  cancelMigration: {
    method: 'POST',
    path: '/migrations/:migration/cancel',
    role: 'operator',
    summary: 'Cancel; the guest goes on running on the source',
    params: migrationParams,
    reply: migrationView,
    status: 202,
  },
  switchMigration: {
    method: 'POST',
    path: '/migrations/:migration/switch',
    role: 'operator',
    summary: 'Switch now: a held move completes, another goes over to post-copy where policy and hosts allow it',
    params: migrationParams,
    reply: migrationView,
    status: 202,
  },
  recordBlackout: {
    method: 'PUT',
    path: '/migrations/:migration/blackout',
    role: 'operator',
    summary: 'What an outside prober saw of a migration that has ended',
    params: migrationParams,
    body: z.object({ blackoutMs: z.number().min(0).max(86_400_000) }).strict(),
    reply: migrationView,
  },
} as const satisfies Record<string, Endpoint>;
