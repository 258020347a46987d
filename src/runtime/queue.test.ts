import { describe, expect, test } from 'vitest';
import { AsyncQueue, KeyedQueue, QueueFull } from './queue.ts';
import type { Overflow } from './queue.ts';

async function rest<T>(queue: AsyncQueue<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of queue) values.push(value);
  return values;
}

describe('a queue', () => {
  const filled = (overflow: Overflow): { queue: AsyncQueue<number>; taken: boolean[] } => {
    const queue = new AsyncQueue<number>({ limit: 2, overflow });
    return { queue, taken: [1, 2, 3].map((n) => queue.push(n)) };
  };

  test('gives a waiting reader each value as it comes, and ends when closed', async () => {
    const queue = new AsyncQueue<number>({ limit: 2, overflow: 'refuse' });
    const reading = rest(queue);
    for (let n = 1; n <= 5; n++) {
      queue.push(n);
      await Promise.resolve();
      await Promise.resolve();
      await Promise.resolve();
    }
    queue.close();
    expect(await reading).toEqual([1, 2, 3, 4, 5]);
    expect(queue.push(6)).toBe(false);
  });

  test('that refuses when full keeps what it has', async () => {
    const { queue, taken } = filled('refuse');
    queue.close();
    expect(taken).toEqual([true, true, false]);
    expect(await rest(queue)).toEqual([1, 2]);
  });

  test('that drops the oldest when full keeps the newest', async () => {
    const { queue, taken } = filled('drop-oldest');
    queue.close();
    expect(taken).toEqual([true, true, true]);
    expect(await rest(queue)).toEqual([2, 3]);
  });

  test('that fails when full gives what it has and then the error', async () => {
    const { queue, taken } = filled('fail');
    expect(taken).toEqual([true, true, false]);
    const seen: number[] = [];
    const reading = (async () => {
      for await (const n of queue) seen.push(n);
    })();
    await expect(reading).rejects.toThrow(QueueFull);
    expect(seen).toEqual([1, 2]);
  });

  test('whose writer failed gives the reader that error', async () => {
    const queue = new AsyncQueue<number>({ limit: 2, overflow: 'refuse' });
    const reading = rest(queue);
    queue.fail(new Error('QEMU is gone'));
    await expect(reading).rejects.toThrow('QEMU is gone');
  });

  test('whose reader left takes no more', async () => {
    const { queue } = filled('refuse');
    for await (const n of queue) if (n === 1) break;
    expect(queue.push(4)).toBe(false);
  });
});

describe('a keyed queue', () => {
  test('runs tasks of one key one after another in order, also behind one that failed, and other keys meanwhile', async () => {
    const queue = new KeyedQueue({ limit: 10 });
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const ran: string[] = [];
    const first = queue.run('a', async () => {
      await gate;
      ran.push('a1');
      throw new Error('a1 failed');
    });
    const second = queue.run('a', async () => ran.push('a2'));
    await queue.run('b', async () => ran.push('b1'));
    open();
    await expect(first).rejects.toThrow('a1 failed');
    expect(await second).toBe(3);
    expect(ran).toEqual(['b1', 'a1', 'a2']);
  });

  test('refuses tasks beyond its limit per key and takes them again when there is room', async () => {
    const queue = new KeyedQueue({ limit: 2 });
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const running = [queue.run('a', () => gate), queue.run('a', () => gate)];
    await expect(queue.run('a', () => gate)).rejects.toThrow(QueueFull);
    await queue.run('b', async () => {});
    open();
    await Promise.all(running);
    await queue.run('a', async () => {});
  });
});
