/** Labels of hosts and VMs over the API. */
import { z } from 'zod';

/** What can be written after `--selector`: neither of the signs that it is made of. */
const key = z.string().regex(/^[^\s=,]{1,100}$/, 'a label is named without blanks, "=" and ","');
const value = z.string().regex(/^[^,]{0,200}$/, 'the value of a label has no ","');

export const labelChanges = z
  .record(key, value.nullable())
  .refine((labels) => Object.keys(labels).length <= 100, 'more than 100 labels')
  .describe('those that are named are set, null removes one; the others stay');
export type LabelChanges = z.output<typeof labelChanges>;
