import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { endpoints } from '../../src/wire/endpoints.ts';

const web = join(import.meta.dirname, '..', '..', 'src', 'web');
const pages = readdirSync(web, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.tsx'));

/** What of it a viewer is refused. */
function needsARole(text: string): string[] {
  return Object.entries(endpoints).flatMap(([name, { role }]) =>
    role !== 'viewer' && role !== 'none' && new RegExp(`client\\s*\\.${name}\\(`).test(text) ? [name] : [],
  );
}

test('the dashboard offers what a role is refused only where it has asked for the role', () => {
  const acts = pages.flatMap((page) => {
    const text = readFileSync(join(web, page), 'utf8');
    return needsARole(text).map((name) => ({
      page,
      name,
      asked: new RegExp(`(does=|useMay\\().*['"]${name}['"]`).test(text),
    }));
  });
  expect(acts.length).toBeGreaterThan(10);
  expect(acts.filter(({ asked }) => !asked)).toEqual([]);
});
