/** What is allowed to a move, as a request says it: what is left out is filled in by technique. */
import { z } from 'zod';

export const positiveMs = z.number().int().min(1).max(86_400_000);

export const policyInput = z
  .object({
    maxDowntimeMs: z.number().int().min(1).max(2_000_000),
    maxBandwidthBytesPerSecond: z.number().int().min(125_000, 'at least 1Mbit').max(1e12).nullable(),
    deadlineMs: positiveMs.nullable(),
    autoConverge: z.boolean(),
    parallelStreams: z.number().int().min(0).max(64),
    compression: z.enum(['none', 'xbzrle', 'zstd']),
    whenNotConverging: z.enum(['fail', 'post-copy', 'pause']),
    shutdownTimeoutMs: positiveMs,
    forceOff: z.boolean(),
  })
  .partial()
  .strict();
