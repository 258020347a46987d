/**
 * The forecast in its short form, for plans with hundreds of thousands of candidates: plain numbers in, one number out, nothing
 * allocated. The closed formula instead of rounds; a guest that writes too fast is taken to switch to post-copy, as `auto` does. Pure.
 *
 * Method: pre-copy's geometric series, its dirty part no larger than the hot set (planning on averages: Liu et al., HPDC 2011).
 */
import { beginMs, endMs } from './forecast.ts';
import { firstDowntimeLimitMs } from './steer.ts';

/** From here on pre-copy takes long to get ahead of the guest; `auto` switches (migration/steer.ts). */
const writesTooFast = 0.8;

/**
 * Bytes that a live move sends.
 * @param hotBytes Infinity where the size of the set that is written again and again is not known
 * @param bytesPerSecond of the link, above zero
 */
export function quickBytes(
  inUseBytes: number,
  dirtyBytesPerSecond: number,
  hotBytes: number,
  bytesPerSecond: number,
): number {
  const left = Math.min(inUseBytes, hotBytes, (dirtyBytesPerSecond * inUseBytes) / bytesPerSecond);
  const ratio = dirtyBytesPerSecond / bytesPerSecond;
  const stopsAt = (firstDowntimeLimitMs * bytesPerSecond) / 1000;
  // Stop-and-copy, or post-copy, after the first round: what it left is sent once.
  if (ratio >= writesTooFast || left <= stopsAt) return inUseBytes + left;
  const rounds = Math.max(1, Math.ceil(Math.log(stopsAt / left) / Math.log(ratio)));
  return inUseBytes + (left * (1 - ratio ** rounds)) / (1 - ratio);
}

/** Reservation until the source is released, for a move that sends so much. */
export function quickMs(bytes: number, bytesPerSecond: number): number {
  return beginMs + (bytes * 1000) / bytesPerSecond + endMs;
}
