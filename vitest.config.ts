// The tests that need no lab. `unit` runs in milliseconds and touches nothing outside the process but temporary files;
// `contract` runs one suite against several implementations and may start real programs (QEMU, a store). The lab's
// scenarios are an ordinary program (test/lab/run.ts), not vitest tests.

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
          testTimeout: 10_000,
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
    ],
  },
});
