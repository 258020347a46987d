/** Forecasts of moves over the API: what is kept with a migration, and the answer for all techniques at once. */
import { z } from 'zod';
import { techniques } from '../model/migration.ts';
import { policyInput } from './policy.ts';

/** As kept with a migration when it begins. */
export const forecastView = z.object({
  converges: z.boolean().describe('false: it gives up; total and bytes are then what that costs'),
  because: z.string().nullable().describe('why it does not converge, or why it switches or pauses'),
  endsBy: z.enum(['stop-and-copy', 'post-copy', 'restart']),
  totalMs: z.number(),
  downtimeMs: z.number(),
  blackoutMs: z.number(),
  bytes: z.number(),
  rounds: z.number(),
  faults: z.number(),
  basis: z
    .object({
      inUseBytes: z.number(),
      inUseFrom: z.enum(['measured', 'earlier-moves', 'reported', 'size']),
      writing: z.object({ hotBytes: z.number(), hotMs: z.number(), coldBytesPerSecond: z.number() }),
      writingFrom: z.enum(['measured', 'earlier-moves', 'assumed']),
      bytesPerSecond: z.number(),
      linkFrom: z.enum(['earlier-moves', 'configured', 'interface', 'assumed']),
    })
    .describe('what it was worked out from'),
  correction: z
    .object({
      totalMs: z.number(),
      downtimeMs: z.number(),
      blackoutMs: z.number(),
      bytes: z.number(),
      moves: z.number().int().describe('of this VM'),
      others: z.number().int().describe('of other VMs'),
    })
    .describe('factors learnt from earlier moves, and from how many'),
});
export type ForecastView = z.infer<typeof forecastView>;

export const forecastBody = z
  .object({
    to: z.string().min(1).max(100).nullable().default(null).describe('host, name or id; null: where it fits best'),
    policy: policyInput.default({}),
  })
  .strict();

export const forecastTable = z.object({
  vm: z.string().describe('id'),
  vmName: z.string(),
  source: z.string().describe('name of the host'),
  target: z.string().describe('name of the host'),
  techniques: z.array(
    z.object({
      technique: z.enum(techniques),
      refused: z.string().nullable().describe('why it cannot move that way'),
      forecast: forecastView.nullable(),
    }),
  ),
});
export type ForecastTable = z.infer<typeof forecastTable>;
