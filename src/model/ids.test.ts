/** Ids sort by time and never come twice; names can be used as file and link names. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { didYouMean, namePattern, newId } from './ids.ts';

const time = fc.integer({ min: 0, max: 2 ** 47 });
const chance = fc.uint8Array({ minLength: 8, maxLength: 8 });

test('a later id sorts behind an earlier one, whatever chance adds', () => {
  fc.assert(
    fc.property(time, time, chance, chance, (a, b, first, second) => {
      fc.pre(a !== b);
      expect(newId('vm', a, first) < newId('vm', b, second)).toBe(a < b);
    }),
  );
});

test('another chance makes another id at the same moment', () => {
  fc.assert(
    fc.property(time, chance, chance, (at, first, second) => {
      fc.pre(first.some((byte, i) => byte !== second[i]));
      expect(newId('migration', at, first)).not.toBe(newId('migration', at, second));
    }),
  );
});

test('a name holds nothing that a path, a link or a command line would take for something else', () => {
  for (const good of ['web1', 'a', 'db-2.prod']) expect(good).toMatch(namePattern);
  for (const bad of ['', '-a', 'a-', 'Web', 'a/b', 'a b', 'a,b', '..', 'ä', 'x'.repeat(64)])
    expect(bad).not.toMatch(namePattern);
});

test('a typing mistake is recognised, another word is not', () => {
  expect(didYouMean('web2', ['web1', 'database'])).toBe('web1');
  expect(didYouMean('migrat', ['migrate', 'doctor'])).toBe('migrate');
  expect(didYouMean('completely-other', ['web1', 'database'])).toBeUndefined();
});
