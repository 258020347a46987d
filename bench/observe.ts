/**
 * Sees one move from outside, by QEMU's own events on both sides and by the same means for every contestant: over QEMU's
 * second monitor, while the contestant has the first. Nobody's own claims count.
 *
 *     asked -> first page -> rounds -> STOP -> sent (source completed) -> RESUME on the target -> all memory there
 */
import { systemClock } from '../src/runtime/clock.ts';
import { connectQmp, type QmpConnection } from '../src/hypervisor/qemu/qmp.ts';

const arrivedMs = 120_000;
const lookEveryMs = 5;
const connectMs = 5_000;

/** Times are ms since 1970, by QEMU's clock (it is one machine). */
export interface Timeline {
  readonly firstPageAt: number;
  readonly rounds: number;
  readonly stoppedAt: number;
  /** The source holds the acknowledgement (pre-copy) or has sent its last page (post-copy). */
  readonly sentAt: number;
  readonly resumedAt: number;
  /** The guest runs on the target and all its memory is there: in pre-copy the same as `resumedAt`. */
  readonly completeAt: number;
  readonly postCopy: boolean;
  /** What QEMU calls total-time; null when the source was gone before it could be asked. */
  readonly qemuTotalMs: number | null;
}

export interface Observation extends Disposable {
  /** @param target path of the target's second monitor, as soon as there is one */
  arrival(target: () => string | undefined, signal: AbortSignal): Promise<Timeline>;
}

/** Begins before anything is asked for, so that nothing is missed on the source. */
export async function observe(sourceMonitor: string): Promise<Observation> {
  const source = await connectQmp({ path: sourceMonitor });
  const over = new AbortController();
  const leaving = watchSource(source, over.signal);
  leaving.catch(() => {}); // reported by arrival(), if anybody still waits for it
  return {
    async arrival(target, signal) {
      const deadline = AbortSignal.any([signal, over.signal, AbortSignal.timeout(arrivedMs)]);
      const entering = watchTarget(target, deadline);
      // A source that failed never lets its target resume.
      const [left, entered] = await Promise.all([leaving, entering]).finally(() => over.abort());
      return { ...left, ...entered };
    },
    [Symbol.dispose]() {
      over.abort();
      source.close();
    },
  };
}

type Leaving = Pick<Timeline, 'firstPageAt' | 'rounds' | 'stoppedAt' | 'sentAt' | 'qemuTotalMs'>;
type Entering = Pick<Timeline, 'resumedAt' | 'completeAt' | 'postCopy'>;

async function watchSource(source: QmpConnection, signal: AbortSignal): Promise<Leaving> {
  let firstPageAt: number | undefined;
  let stoppedAt: number | undefined;
  let rounds = 0;
  for await (const event of source.events({ signal })) {
    if (event.name === 'STOP') stoppedAt = event.qemuTimeMs;
    if (event.name === 'MIGRATION_PASS') rounds = event.data.pass;
    if (event.name !== 'MIGRATION') continue;
    const { status } = event.data;
    if (status === 'active') firstPageAt ??= event.qemuTimeMs;
    if (status === 'failed' || status === 'cancelled') throw new Error(`the source says ${status}`);
    if (status !== 'completed') continue;
    if (firstPageAt === undefined || stoppedAt === undefined) throw new Error('the source completed without a STOP');
    const reply = await source.execute('query-migrate').catch(() => undefined);
    const qemuTotalMs = reply?.['total-time'] ?? null;
    return { firstPageAt, stoppedAt, rounds, sentAt: event.qemuTimeMs, qemuTotalMs };
  }
  throw new Error('the source ended before it had completed');
}

async function watchTarget(find: () => string | undefined, signal: AbortSignal): Promise<Entering> {
  using target = await connectWhenThere(find, signal);
  let postCopy = false;
  let resumedAt: number | undefined;
  for await (const event of target.events({ signal })) {
    if (event.name === 'RESUME') resumedAt ??= event.qemuTimeMs;
    if (event.name === 'MIGRATION' && event.data.status === 'postcopy-active') postCopy = true;
    if (resumedAt === undefined) continue;
    if (!postCopy) return { postCopy, resumedAt, completeAt: resumedAt };
    if (event.name === 'MIGRATION' && event.data.status === 'completed') {
      return { postCopy, resumedAt, completeAt: event.qemuTimeMs };
    }
  }
  signal.throwIfAborted();
  throw new Error('the target ended before the guest ran there');
}

/** By looking again and again: nobody says when a QEMU that somebody else starts has opened its monitor. */
async function connectWhenThere(find: () => string | undefined, signal: AbortSignal): Promise<QmpConnection> {
  for (;;) {
    signal.throwIfAborted();
    const path = find();
    const connection = path && (await connectQmp({ path, signal, timeoutMs: connectMs }).catch(() => undefined));
    if (connection) return connection;
    await systemClock.sleep(lookEveryMs, signal);
  }
}
