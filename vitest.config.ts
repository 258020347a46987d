// The tests that need no lab. `unit` runs in milliseconds and touches nothing outside the process but temporary files;
// `sim` runs whole fleets on virtual time; `contract` runs one suite against several implementations and may start real
// programs (QEMU, a store); `web` looks at the dashboard with a real browser. The lab's scenarios are an ordinary program (test/lab/run.ts), not vitest tests.

import { defineConfig } from 'vitest/config';

const common = { environment: 'node', restoreMocks: true } as const;

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['src/**/*.test.ts', 'test/property/**/*.test.ts', 'bench/**/*.test.ts', 'tools/**/*.test.mjs'],
          // Far beyond what any takes: a busy machine must not fail one.
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          ...common,
          name: 'sim',
          include: ['test/sim/**/*.test.ts'],
          testTimeout: 480_000,
          hookTimeout: 10_000,
        },
      },
      {
        test: {
          ...common,
          name: 'contract',
          include: ['test/contract/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          ...common,
          name: 'web',
          include: ['test/web/**/*.test.ts'],
          // Each waits for its fleet most of the time.
          maxWorkers: 2,
          expect: { poll: { timeout: 30_000 } },
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
