import { expect, it } from 'vitest';
import { chosenCells, matrix, mayHaveRestarted, phasesBetween, shortMatrix, strikes, type Strike } from './cells.ts';

const names = new Set(matrix.map(({ name }) => name));

it('has every strike in the matrix, and each cell once', () => {
  expect(new Set(matrix.map(({ strike }) => strike))).toEqual(new Set(Object.keys(strikes)));
  expect(names.size).toBe(matrix.length);
});

it('takes the short matrix out of the whole one', () => {
  expect(shortMatrix.filter(({ name }) => !names.has(name))).toEqual([]);
});

it('kills no QEMU that is not there in that phase', () => {
  expect(names).not.toContain('target-qemu in powering-off of cold');
  expect(names).not.toContain('source-qemu in powering-on of cold');
  expect(names).toContain('target-qemu in powering-on of cold');
});

it('chooses by what the names match', () => {
  const chosen = chosenCells({ only: 'SERVER in .* of cold', short: false });
  expect(chosen.map(({ phase }) => phase)).toEqual(['reserved', 'powering-off', 'copying', 'powering-on']);
  expect(() => chosenCells({ only: '(', short: false })).toThrow(SyntaxError);
});

it.each([
  ['source-qemu', 'pre-copy', 'warming-up', true],
  ['target-qemu', 'pre-copy', 'warming-up', false],
  ['target-power', 'pre-copy', 'stop-and-copy', false],
  ['source-power', 'pre-copy', 'stop-and-copy', true],
  ['source-power', 'pre-copy', 'resumed', false],
  ['target-power', 'pre-copy', 'resumed', true],
  ['source-qemu', 'post-copy', 'pre-paging', true],
  ['target-qemu', 'post-copy', 'pre-paging', true],
  ['source-power', 'pre-copy', 'completed', false],
  ['target-power', 'pre-copy', 'completed', true],
  ['source-power-unheard', 'pre-copy', 'resumed', false],
  ['source-power-before-go', 'pre-copy', 'stop-and-copy', true],
  ['source-agent', 'cold', 'powering-off', true],
] as const)('lets a guest restart only where its memory died: %s, %s, %s: %s', (strike, technique, phase, may) => {
  expect(mayHaveRestarted({ strike, technique }, { hit: [phase], sent: false })).toBe(may);
});

it('lets a guest restart that the target had whole when it died, paused as it was', () => {
  const cell = { strike: 'target-power', technique: 'pre-copy' } as const;
  expect(mayHaveRestarted(cell, { hit: ['stop-and-copy'], sent: true })).toBe(true);
});

it('lets no guest restart because a program of Drover or a link was struck', () => {
  const harmless: readonly Strike[] = ['source-agent', 'target-agent-away', 'server', 'migration-link', 'source-guard'];
  for (const { strike, technique, phase } of matrix)
    if (harmless.includes(strike) && technique !== 'cold')
      expect(mayHaveRestarted({ strike, technique }, { hit: [phase], sent: false })).toBe(false);
});

it('finds the phase that was hit, and those entered while it was being struck', () => {
  const seen = [
    { phase: 'reserved', at: 100 },
    { phase: 'stop-and-copy', at: 300 },
    { phase: 'warming-up', at: 200 },
    { phase: 'resumed', at: 340 },
  ] as const;
  expect(phasesBetween(seen, 250, 260)).toEqual(['warming-up']);
  expect(phasesBetween(seen, 300, 350)).toEqual(['stop-and-copy', 'resumed']);
  expect(phasesBetween(seen, 50, 60)).toEqual(['reserved']);
});

it('counts a phase once that both QEMU and the record tell', () => {
  const seen = [
    { phase: 'warming-up', at: 200 },
    { phase: 'stop-and-copy', at: 300.25 },
    { phase: 'stop-and-copy', at: 301 },
  ] as const;
  expect(phasesBetween(seen, 300, 400)).toEqual(['stop-and-copy']);
});
