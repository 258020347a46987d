import { afterEach, expect, test } from 'vitest';
import { MiB } from '../model/units.ts';
import type { ForecastView } from '../wire/forecast.ts';
import { aMigration, fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => server?.close());

async function answered(handlers: Handlers, line: string) {
  server = await fakeServer(handlers);
  const it = run(line, { server: server.url });
  return { code: await it.code, out: it.stdout };
}

const forecast: ForecastView = {
  converges: true,
  because: null,
  endsBy: 'stop-and-copy',
  totalMs: 4000,
  downtimeMs: 40,
  blackoutMs: 95,
  bytes: 400 * MiB,
  rounds: 3,
  faults: 0,
  basis: {
    inUseBytes: 360 * MiB,
    inUseFrom: 'measured',
    writing: { hotBytes: 0, hotMs: 1000, coldBytesPerSecond: 10 * MiB },
    writingFrom: 'earlier-moves',
    bytesPerSecond: 113 * MiB,
    linkFrom: 'configured',
  },
  correction: { totalMs: 1, downtimeMs: 1, blackoutMs: 1, bytes: 1, moves: 2, others: 7 },
};
const stuck: ForecastView = {
  ...forecast,
  converges: false,
  because: 'Warm-up does not converge: 3 rounds brought no progress.',
  totalMs: 8500,
  downtimeMs: 1100,
  bytes: 820 * MiB,
};

test('the table shows each technique, why one is refused and why one does not converge', async () => {
  const techniques = [
    { technique: 'auto', refused: null, forecast: { ...forecast, because: 'the guest writes too fast' } },
    { technique: 'pre-copy', refused: null, forecast: stuck },
    { technique: 'post-copy', refused: 'h2 cannot receive by post-copy.', forecast: null },
  ] as const;
  const table = { vm: 'vm_1', vmName: 'web1', source: 'h1', target: 'h2', techniques: [...techniques] };
  const { code, out } = await answered({ forecastVm: () => table }, 'forecast web1 --to h2 --max-downtime 1s');
  expect(code).toBe(0);
  const [head, basis, , ...rows] = out.trimEnd().split('\n');
  expect([head, basis]).toEqual([
    'web1 from h1 to h2',
    '360 MiB in use (measured), writes 10 MiB/s (as earlier moves showed), link 113 MiB/s (as configured), ' +
      'corrected by 2 earlier moves of it and 7 of others',
  ]);
  expect(rows.map((row) => row.split(/ {2,}/))).toEqual([
    ['TECHNIQUE', 'TOTAL', 'DOWNTIME', 'BLACKOUT', 'SENT', 'ROUNDS', 'FAULTS'],
    ['auto', '4.0 s', '40 ms', '95 ms', '400 MiB', '3', '0', 'the guest writes too fast'],
    [
      'pre-copy',
      '-',
      '-',
      '-',
      '-',
      '-',
      '-',
      'does not converge: 3 rounds brought no progress; gives up after 8.5 s and 820 MiB; a pause of 1.1 s would do',
    ],
    ['post-copy', '-', '-', '-', '-', '-', '-', 'refused: h2 cannot receive by post-copy.'],
  ]);
  expect(server?.calls).toMatchObject([
    { name: 'forecastVm', request: { params: { vm: 'web1' }, body: { to: 'h2', policy: { maxDowntimeMs: 1000 } } } },
  ]);
});

test('a dry run shows the forecast and asks for nothing else', async () => {
  const { out } = await answered(
    { migrateVm: () => aMigration({ technique: 'pre-copy', forecast }) },
    'migrate web1 --dry-run',
  );
  expect(out).toContain(
    'nothing was changed\n  forecast: total 4.0 s  downtime 40 ms  blackout 95 ms  sent 400 MiB  rounds 3',
  );
  expect(out).toContain('  from: 360 MiB in use (measured)');
  expect(server?.calls).toMatchObject([{ name: 'migrateVm', request: { body: { dryRun: true } } }]);
});

test('a move that has ended shows what was measured beside what was forecast', async () => {
  const measures = { ...aMigration().measures, totalMs: 4400, downtimeMs: 38, bytes: 398 * MiB };
  const ended = aMigration({ phase: 'completed', forecast, measures });
  const { out } = await answered({ getMigration: () => ended }, `migration show ${ended.id}`);
  expect(out).toMatch(/total time +4\.4 s \(forecast 4\.0 s\)/);
  expect(out).toMatch(/downtime +38 ms \(forecast 40 ms\)/);
  expect(out).toMatch(/blackout +forecast 95 ms/);
  expect(out).toMatch(/sent +398 MiB \(forecast 400 MiB\)/);
  expect(out).toMatch(/forecast from +360 MiB in use/);
});
