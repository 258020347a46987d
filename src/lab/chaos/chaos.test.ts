import { expect, it } from 'vitest';
import { chaosTable } from './chaos.ts';
import type { CellResult } from './cell.ts';

const held: CellResult = {
  cell: { name: 'server in resumed of pre-copy', strike: 'server', technique: 'pre-copy', phase: 'resumed' },
  ok: true,
  wrong: null,
  hit: ['stop-and-copy', 'resumed'],
  ended: 'completed',
  guest: 'h2 (target)',
  interruptionMs: 120,
  verified: 'memory and disk',
  tookMs: 7000,
};

it('shows what was really hit, not only what was wanted', () => {
  expect(chaosTable([held])).toMatch(/server +pre-copy +resumed +stop-and-copy > resumed +completed +h2 \(target\)/);
});

it('says of a strike that never fell that nothing was hit', () => {
  expect(chaosTable([{ ...held, hit: [] }])).toContain(' nothing ');
});

it('says what is wrong where a cell failed', () => {
  expect(chaosTable([{ ...held, ok: false, wrong: 'left over: a tap' }])).toContain('FAILED: left over: a tap');
});
