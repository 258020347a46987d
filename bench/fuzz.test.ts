import { expect, test } from 'vitest';
import { benchFuzz } from './fuzz.ts';

const patience = 240_000;

test(
  'a thousand requests, right and wrong, are all answered, without a 5xx, errors as problems with a known code',
  { timeout: patience },
  async () => {
    const signal = AbortSignal.timeout(patience);
    const result = await benchFuzz({ requests: 1_000, seed: 7, say: () => {}, signal });
    expect(result.failures).toEqual([]);
    expect(result.requests).toBe(1_000);
    // Enough of them were right that the handlers were reached.
    expect(result.succeeded.length).toBeGreaterThan(25);
  },
);
