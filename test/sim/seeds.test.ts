import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { defaultOptions, type SimOptions } from '../../src/sim/options.ts';
import { runSeed } from '../../src/sim/run.ts';

const small = { ...defaultOptions, hosts: 5, vms: 15, minutes: 6 } satisfies SimOptions;
const kept = join(import.meta.dirname, 'kept');

test('the same seed gives the same run, event by event', async () => {
  const first = await runSeed({ ...small, seed: 4711, servers: 3 });
  const second = await runSeed({ ...small, seed: 4711, servers: 3 });
  const other = await runSeed({ ...small, seed: 4712, servers: 3 });
  expect(second.hash).toBe(first.hash);
  expect(second.events).toBe(first.events);
  expect(second.timers).toBe(first.timers);
  expect(other.hash).not.toBe(first.hash);
});

test('tracing a run does not change it', async () => {
  const lines: string[] = [];
  const plain = await runSeed({ ...small, seed: 5 });
  const traced = await runSeed({ ...small, seed: 5 }, (line) => lines.push(line));
  expect(traced.hash).toBe(plain.hash);
  expect(lines.length).toBeGreaterThan(plain.events);
});

test('where nothing goes wrong every move ends as asked and nothing crashes', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const { violations, migrations } = await runSeed({ ...small, seed, disturbances: 'none' });
    expect(violations, `seed ${seed}`).toEqual([]);
    const ends = new Set(Object.values(migrations).flatMap((row) => Object.keys(row)));
    for (const end of ends)
      expect(end).toMatch(
        /^(completed|cancelled|failed on-source: (no-convergence|deadline-passed|shutdown-ignored))$/,
      );
  }
});

// In parts, so that a failed one says which seeds and the others still run.
test.each([1, 51, 101, 151, 201, 251])(
  'nothing runs twice or gets lost whatever goes wrong: 50 seeds from %i',
  async (from) => {
    for (let seed = from; seed < from + 50; seed++) {
      const { violations } = await runSeed({ ...small, seed, servers: 1 + (seed % 3) });
      expect(violations, `seed ${seed}`).toEqual([]);
    }
  },
);

test('hosts that are sent to sleep go down empty, come back, and are never fenced, whatever goes wrong', async () => {
  let slept = 0;
  for (let seed = 301; seed <= 315; seed++) {
    const run = await runSeed({ ...small, vms: 6, seed, servers: 1 + (seed % 3) });
    expect(run.violations, `seed ${seed}`).toEqual([]);
    slept += (run.disturbances['drill'] ?? 0) + (run.disturbances['sleep'] ?? 0);
  }
  expect(slept).toBeGreaterThan(15);
});

test.each(readdirSync(kept).filter((file) => file.endsWith('.json')))('%s stays mended', async (file) => {
  // Written by the simulator's main.ts.
  const options = JSON.parse(readFileSync(join(kept, file), 'utf8')) as SimOptions;
  expect((await runSeed(options)).violations).toEqual([]);
});
