/**
 * The server that `bench sse` reads from, in a process of its own so that its memory is its own: the real control plane and API
 * on simulated hosts. Told by its parent: `go` begins the events, each a commit with the next number in a label.
 */
import { silentLog } from '../src/runtime/log.ts';
import { FakeFleet } from '../src/control/fake-fleet.ts';
import { createApi } from '../src/control/server.ts';

export const benchToken = 'a-token-for-the-bench';

export interface Go {
  readonly perSecond: number;
  readonly events: number;
}
export interface Look {
  readonly sent: number;
  readonly heapMiB: number;
  readonly residentMiB: number;
  readonly cpuMs: number;
}

async function main(): Promise<void> {
  const fleet = await FakeFleet.start(['h1']);
  const api = createApi({ plane: fleet.plane, token: benchToken, log: silentLog });
  const address = await api.listen({ host: '127.0.0.1', port: 0 });
  const host = fleet.plane.fleet.findHost('h1');
  let sent = 0;
  const look = (): Look => {
    globalThis.gc?.();
    const { heapUsed, rss } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    const MiB = 1024 * 1024;
    return { sent, heapMiB: heapUsed / MiB, residentMiB: rss / MiB, cpuMs: (user + system) / 1000 };
  };
  process.on('message', (message: Go | 'look' | 'end') => {
    if (message === 'end') process.exit(0);
    if (message === 'look') return void process.send?.(look());
    const { perSecond, events } = message;
    const beganAt = performance.now();
    const timer = setInterval(() => {
      const due = Math.min(events, Math.floor(((performance.now() - beganAt) * perSecond) / 1000));
      for (; sent < due; sent++) {
        const labels = { number: String(sent) };
        void fleet.plane.fleet.change((draft) => draft.putHost({ ...host, labels }));
      }
      if (sent >= events) clearInterval(timer);
    }, 10);
    return undefined;
  });
  process.send?.({ address });
}

if (process.send !== undefined) await main();
