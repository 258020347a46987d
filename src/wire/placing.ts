/** Where a VM may be, over the API: kept apart from others, together with others, pinned to hosts. */
import { z } from 'zod';
import { namePattern } from '../model/ids.ts';

const group = z.string().regex(namePattern, 'a group is named as VMs are: a-z, 0-9, "-" and "."');
const groups = z.array(group).max(20);

export const placingView = z.object({
  apart: z.array(z.string()).describe('groups of which no two VMs share a host'),
  together: z.array(z.string()).describe('groups whose VMs share one host'),
  pinnedTo: z.array(z.string()).nullable().describe('names of the hosts it may be on; null: all'),
});

/** What is left out stays as it is. */
export const placingChanges = z
  .object({
    apart: groups,
    together: groups,
    pinnedTo: z.array(z.string().min(1).max(100)).min(1).max(1000).nullable().describe('names or ids of hosts'),
  })
  .partial()
  .strict();
export type PlacingChanges = z.output<typeof placingChanges>;
export type PlacingInput = z.input<typeof placingChanges>;
