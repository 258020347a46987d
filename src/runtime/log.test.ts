import { expect, test } from 'vitest';
import { createLog, plainLines } from './log.ts';

function sink() {
  const lines: string[] = [];
  return { lines, write: (line: string) => void lines.push(line) };
}

test('a line is one JSON object with level, time, message and the fields of the log and its parents', () => {
  const to = sink();
  createLog({ to, fields: { program: 'agent' } })
    .child({ vm: 'web1' })
    .info({ round: 2 }, 'round done');
  expect(to.lines).toHaveLength(1);
  expect(JSON.parse(to.lines[0]!)).toEqual({
    level: 'info',
    time: expect.stringMatching(/^\d{4}-.*Z$/),
    program: 'agent',
    vm: 'web1',
    round: 2,
    msg: 'round done',
  });
});

test('lines below the level are left out', () => {
  const to = sink();
  const log = createLog({ to, level: 'warn' });
  log.info({}, 'no');
  log.warn({}, 'yes');
  expect(to.lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(['yes']);
});

test('an error is logged with its message and those of its causes', () => {
  const to = sink();
  const cause = new Error('connection refused');
  createLog({ to }).error({ error: new Error('no answer from h2', { cause }) }, 'order failed');
  expect(to.lines[0]).toContain('no answer from h2');
  expect(to.lines[0]).toContain('connection refused');
});

test('on a terminal a line reads as time, level, message and fields, an error below it', () => {
  const to = sink();
  const log = createLog({ to: plainLines(to) });
  log.warn({ vm: 'web1', limits: { downtimeMs: 30 } }, 'slow');
  log.error({ error: new Error('gone') }, 'failed');
  expect(to.lines[0]).toMatch(/^\d\d:\d\d:\d\d\.\d{3} warn {2}slow vm=web1 limits=\{"downtimeMs":30\}\n$/);
  expect(to.lines[1]).toMatch(/ error failed\n$/);
  expect(to.lines[2]).toMatch(/^ {4}Error: gone\n/);
});
