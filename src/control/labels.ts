/** Labels of a record after a change. */
import type { LabelChanges } from '../wire/labels.ts';

/** By name, so that the same labels are the same record. */
export function labelsAfter(
  before: Readonly<Record<string, string>>,
  changes: LabelChanges,
): Readonly<Record<string, string>> {
  const after = Object.entries({ ...before, ...changes }).filter(
    (label): label is [string, string] => label[1] !== null,
  );
  return Object.fromEntries(after.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
