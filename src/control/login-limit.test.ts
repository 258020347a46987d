import { expect, test } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import { LoginLimit } from './login-limit.ts';

const tries = (limit: LoginLimit, name: string, address: string): number => {
  for (let count = 0; count < 10_000; count++) {
    try {
      limit.take(name, address);
    } catch {
      return count;
    }
  }
  return Number.POSITIVE_INFINITY;
};

test('one name from one address: five guesses, then one every half minute', async () => {
  const clock = new TestClock();
  const limit = new LoginLimit(clock);
  expect(tries(limit, 'alice', '10.0.0.1')).toBe(5);
  await clock.advance(29_000);
  expect(tries(limit, 'alice', '10.0.0.1')).toBe(0);
  await clock.advance(1_000);
  expect(tries(limit, 'alice', '10.0.0.1')).toBe(1);
  expect(tries(limit, 'alice', '10.0.0.2')).toBe(5);
});

test('many names from one address, and one name from many addresses, are held up too', () => {
  const limit = new LoginLimit(new TestClock());
  let total = 0;
  for (let i = 0; i < 20; i++) total += tries(limit, `user${i}`, '10.0.0.1');
  expect(total).toBe(30);
  total = 0;
  for (let i = 0; i < 100; i++) total += tries(limit, 'bob', `10.1.0.${i}`);
  expect(total).toBe(100);
});

test('the error says when, and a try that succeeded is given back', () => {
  const limit = new LoginLimit(new TestClock());
  for (let i = 0; i < 50; i++) limit.take('alice', '10.0.0.1')();
  tries(limit, 'alice', '10.0.0.1');
  expect(() => limit.take('alice', '10.0.0.1')).toThrow(
    expect.objectContaining({ code: 'too-many-requests', retryAfterMs: 30_000 }),
  );
});
