import { expect, test } from 'vitest';
import { faults } from '../../src/sim/faults.ts';
import { defaultOptions, type SimOptions } from '../../src/sim/options.ts';
import { runSeed } from '../../src/sim/run.ts';

const seedsAtMost = 1000;
const small = { ...defaultOptions, hosts: 5, vms: 15, minutes: 6 } satisfies SimOptions;

/** The first seed whose run breaks a rule. */
async function firstCaught(fault: string): Promise<SimOptions | undefined> {
  for (let seed = 1; seed <= seedsAtMost; seed++) {
    const options = { ...small, seed, servers: 1 + (seed % 3), fault };
    const sound = async () => (await runSeed({ ...options, fault: null })).violations.length === 0;
    // What is broken without the fault as well says nothing about it.
    if ((await runSeed(options)).violations.length > 0 && (await sound())) return options;
  }
  return undefined;
}

test.each(Object.keys(faults))('%s is noticed', async (fault) => {
  expect(await firstCaught(fault)).toBeDefined();
});
