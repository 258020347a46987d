import { describe, expect, it } from 'vitest';
import { Pool } from './pool.ts';

describe('a pool of threads', () => {
  it('answers each job in its place, with fewer threads than jobs', async () => {
    using pool = new Pool<string, string>(new URL('node:path'), 'basename', 2);
    expect(await pool.map(['/a/b', '/c/d', '/e/f', '/g/h', '/i'])).toEqual(['b', 'd', 'f', 'h', 'i']);
    expect(await pool.map(['/again'])).toEqual(['again']);
  });

  it('throws what the function threw', async () => {
    using pool = new Pool<number, string>(new URL('node:path'), 'basename', 1);
    await expect(pool.map([7])).rejects.toThrow(/"path" argument must be of type string/);
  });

  it('drives steps that ask for several answers at a time', async () => {
    using pool = new Pool<string, string>(new URL('node:path'), 'dirname', 2);
    const steps = function* (): Generator<readonly string[], string, readonly string[]> {
      const first = yield ['/a/b/c', '/d/e/f'];
      const second = yield [...first];
      return second.join(' ');
    };
    expect(await pool.drive(steps())).toBe('/a /d');
  });

  it('stops when it is told to', async () => {
    using pool = new Pool<string, string>(new URL('node:path'), 'basename', 1);
    const abort = new AbortController();
    abort.abort(new Error('no longer wanted'));
    await expect(pool.map(['/a'], abort.signal)).rejects.toThrow('no longer wanted');
  });
});
