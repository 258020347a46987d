/** How memory travels in one move, from its job: both ends set the same. */
import type { TransferOptions } from '../hypervisor/hypervisor.ts';
import { firstDowntimeLimitMs } from '../migration/steer.ts';
import type { MoveJob } from '../wire/agent.ts';

export function transferOptions(job: MoveJob): TransferOptions {
  const { policy } = job;
  return {
    postCopy: job.postCopy,
    parallelStreams: policy.parallelStreams,
    compression: policy.compression,
    autoConverge: policy.autoConverge,
    maxBandwidthBytesPerSecond: policy.maxBandwidthBytesPerSecond,
    hold: job.hold === true,
    downtimeLimitMs: Math.min(firstDowntimeLimitMs, policy.maxDowntimeMs),
  };
}
