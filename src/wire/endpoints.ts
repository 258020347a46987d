/**
 * The public API: one table. The server mounts it (a handler per name or it does not compile), the client is derived
 * from it, OpenAPI and the reference are written from it. Paths are below /api/v1; `:name` parts come from `params`.
 * Not here: the rows of one area and what they show, each in a file of its own.
 */
import { z } from 'zod';
import { balanceEndpoints } from './balance.ts';
import { drainRows } from './drains.ts';
import { timeMs, type Endpoint } from './endpoint.ts';
import { energyEndpoints } from './energy.ts';
import { eventEndpoints } from './events.ts';
import { fleetSnapshot } from './fleet.ts';
import { hostEndpoints } from './hosts.ts';
import { loadEndpoints } from './loads.ts';
import { migrationEndpoints } from './migrations.ts';
import { peopleEndpoints } from './people.ts';
import { recoveryEndpoints } from './recovery.ts';
import { taskEndpoints } from './tasks.ts';
import { vmEndpoints } from './vms.ts';
import { webhookEndpoints } from './webhooks.ts';

export type { Endpoint } from './endpoint.ts';
export { eventView, type EventView } from './events.ts';
export type { HostView } from './hosts.ts';
export type { MigrationSampleView, MigrationView } from './migrations.ts';
export { migrateBody, newVm, type MigrateBody, type NewVm, type VmView } from './vms.ts';

export const finding = z.object({
  severity: z.enum(['ok', 'warning', 'error']),
  about: z.string().describe('what was looked at, e.g. "host h1: post-copy"'),
  says: z.string(),
  mend: z.string().nullable().describe('what to do'),
});
export type Finding = z.infer<typeof finding>;

export const endpoints = {
  getStatus: {
    method: 'GET',
    path: '/status',
    role: 'viewer',
    summary: 'Version, term and counts',
    reply: z.object({
      version: z.string(),
      term: z.number().int(),
      startedAt: timeMs,
      hosts: z.number().int(),
      vms: z.number().int(),
      openMigrations: z.number().int(),
      held: z
        .object({ since: timeMs, because: z.string(), missing: z.array(z.string()).describe('names of hosts') })
        .nullable()
        .default(null)
        .describe('the records are older than the fleet: nothing is ordered until these hosts have reported'),
    }),
  },
  ...peopleEndpoints,
  ...hostEndpoints,
  ...energyEndpoints,
  ...vmEndpoints,
  ...loadEndpoints,
  ...migrationEndpoints,
  ...recoveryEndpoints,
  ...taskEndpoints,
  ...balanceEndpoints,
  ...eventEndpoints,
  ...webhookEndpoints,
  getFleetSnapshot: {
    method: 'GET',
    path: '/fleet/snapshot',
    role: 'viewer',
    summary: 'Hosts, VMs and their load as `drover plan` reads them',
    reply: fleetSnapshot,
  },
  backup: {
    method: 'GET',
    path: '/backup',
    role: 'admin',
    summary: 'Everything the store holds, as the file that `drover restore` takes',
    reply: z.never(),
    stream: 'lines',
  },
  checkFleet: {
    method: 'GET',
    path: '/doctor',
    role: 'viewer',
    summary: 'What is wrong with the fleet and how to mend it',
    reply: z.array(finding),
  },
  ...drainRows,
} as const satisfies Record<string, Endpoint>;

export type EndpointName = keyof typeof endpoints;
type Field<E, K extends string, Fallback> = E extends { readonly [P in K]: infer S extends z.ZodType } ? S : Fallback;
/** What a caller passes: params, query and body in one object each. */
export type RequestOf<N extends EndpointName> = InputOf<(typeof endpoints)[N]>;
type InputOf<E> = (Field<E, 'params', never> extends never ? object : { params: z.input<Field<E, 'params', never>> }) &
  (Field<E, 'query', never> extends never ? object : { query?: z.input<Field<E, 'query', never>> }) &
  (Field<E, 'body', never> extends never ? object : { body: z.input<Field<E, 'body', never>> });
/** What a handler gets: the same, checked and with defaults filled in. */
export type HandledOf<N extends EndpointName> = OutputOf<(typeof endpoints)[N]>;
type OutputOf<E> = (Field<E, 'params', never> extends never
  ? object
  : { params: z.output<Field<E, 'params', never>> }) &
  (Field<E, 'query', never> extends never ? object : { query: z.output<Field<E, 'query', never>> }) &
  (Field<E, 'body', never> extends never ? object : { body: z.output<Field<E, 'body', never>> });
export type ReplyOf<N extends EndpointName> = z.output<(typeof endpoints)[N]['reply']>;
