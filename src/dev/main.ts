/**
 * `npm run dev`: a fleet to look at, without root and without QEMU. Twelve simulated hosts with VMs under load, the real server
 * with the dashboard, and something going on all the time: moves by every technique, a plan that waits for a person.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { UserError, messageOf } from '../model/failure.ts';
import { techniques } from '../model/migration.ts';
import { systemClock } from '../runtime/clock.ts';
import { DevFleet } from './fleet.ts';
import { populate } from './population.ts';

const usage = `npm run dev -- [--port 7070] [--hosts 12] [--quiet]

  --port N    of the dashboard and the API; 7070 unless it is taken, then any
  --hosts N   simulated hosts, 3 to 100
  --quiet     nothing moves by itself

Example: npm run dev -- --port 8080
`;
const pageDir = join(import.meta.dirname, '..', '..', '.drover', 'web');
const pauseBetweenMovesMs = 6_000;

async function main(): Promise<number> {
  const options = parse();
  if (typeof options === 'number') return options;
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
  const fleet = await startAt(options.port, options.hosts);
  try {
    await populate(fleet);
    const { url, token } = fleet.server;
    const page = existsSync(pageDir) ? url : `${url}   (the page is not built: npm run build)`;
    process.stdout.write(`
Drover on ${options.hosts} simulated hosts. No guest is real; the server, the agents and the dashboard are.

  dashboard   ${page}
  token       ${token}
  sign in     ${url}/#token=${token}
  by hand     bin/drover --server ${url} host list     with DROVER_TOKEN=${token}

Ctrl-C ends all of it and leaves nothing behind.
`);
    // What is under way then is not waited for.
    const over = aborted(stop.signal);
    await Promise.race(options.quiet ? [over] : [over, keepMoving(fleet, stop.signal).then(() => over)]);
  } finally {
    process.stdout.write('\nending\n');
    await fleet.close();
  }
  return 0;
}

function parse(): { port: number | null; hosts: number; quiet: boolean } | number {
  const { values } = parseArgs({
    options: {
      port: { type: 'string' },
      hosts: { type: 'string', default: '12' },
      quiet: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const hosts = Number(values.hosts);
  const port = values.port === undefined ? null : Number(values.port);
  const good = Number.isInteger(hosts) && hosts >= 3 && hosts <= 100;
  if (good && (port === null || (Number.isInteger(port) && port >= 0 && port < 65_536)))
    return { port, hosts, quiet: values.quiet };
  process.stderr.write(`npm run dev: --hosts takes 3 to 100 and --port a port.\n\n${usage}`);
  return 2;
}

async function startAt(port: number | null, hosts: number): Promise<DevFleet> {
  const onServerLog = (line: string): void => void process.stderr.write(`server: ${line}\n`);
  if (port !== null) return DevFleet.start({ hosts, port, onServerLog });
  try {
    return await DevFleet.start({ hosts, port: 7070 });
  } catch (error) {
    if (!messageOf(error).includes('EADDRINUSE')) throw error;
    return DevFleet.start({ hosts, port: 0, onServerLog });
  }
}

/** Two moves at a time, by one technique after the other; what cannot be moved just now is left. */
async function keepMoving(fleet: DevFleet, signal: AbortSignal): Promise<void> {
  const { client } = fleet;
  const mover = async (offset: number): Promise<void> => {
    for (let turn = offset; !signal.aborted; turn++) {
      try {
        const vms = (await client.listVms()).filter((vm) => vm.state === 'running' && vm.migration === null);
        const vm = vms[Math.floor(Math.random() * vms.length)];
        const technique = techniques[turn % techniques.length];
        if (vm && technique) {
          const body = { technique, why: 'something to look at', policy: { whenNotConverging: 'post-copy' as const } };
          const move = await client.migrateVm({ params: { vm: vm.id }, body });
          for await (const { event } of client.events({ migration: move.id, samples: false, signal }))
            if (event.type === 'migration' && event.migration.ended) break;
        }
      } catch (error) {
        if (!(error instanceof UserError)) throw error; // refused: the next one
      }
      await systemClock.sleep(pauseBetweenMovesMs, signal).catch(() => {});
    }
  };
  await Promise.all([mover(0), mover(2), fleet.planned().catch(() => {})]); // evenly loaded: nothing to propose
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

let code = 1;
try {
  code = await main();
} catch (error) {
  process.stderr.write(`npm run dev: ${messageOf(error)}\n${error instanceof UserError ? error.hint : ''}\n`);
}
// Agents whose machines lost their power wait for answers that never come.
process.exit(code);
