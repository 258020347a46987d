/** The cells of the kill matrix that matter most; all of them: `drover lab chaos`. */
import assert from 'node:assert/strict';
import { runCell } from '../../../src/lab/chaos/cell.ts';
import { shortMatrix } from '../../../src/lab/chaos/cells.ts';
import type { Scenario } from '../harness.ts';

export const scenarios: readonly Scenario[] = shortMatrix.map((cell) => ({
  name: `chaos: ${cell.name}`,
  async run({ lab, signal }) {
    const { wrong } = await runCell(lab, cell, signal);
    assert.equal(wrong, null);
  },
}));
