/**
 * The public API: one table. The server mounts it (a handler per name or it does not compile), the client is derived
 * from it, OpenAPI and the reference are written from it. Paths are below /api/v1; `:name` parts come from `params`.
 */
import { z } from 'zod';
import { namePattern } from '../model/ids.ts';
import { techniques, phaseNames } from '../model/migration.ts';
import { failureCodes } from '../model/failure.ts';

const name = z
  .string()
  .regex(namePattern, 'a name has 1 to 63 of a-z, 0-9, "-" and ".", and begins and ends with a letter or digit');
const ref = z.string().min(1).max(100).describe('name or id');
const timeMs = z.number().describe('ms since the epoch');
const positiveMs = z.number().int().min(1).max(86_400_000);

export const hostView = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(['up', 'silent']),
  cordoned: z.boolean(),
  labels: z.record(z.string(), z.string()),
  cpus: z.number(),
  memoryMiB: z.number(),
  capacityMiB: z.number().describe('memory that guests may use'),
  usedMiB: z.number().describe('memory of guests and reservations'),
  reservedMiB: z.number(),
  vms: z.array(z.string()),
  accel: z.enum(['kvm', 'tcg']),
  qemuVersion: z.string(),
  liveMigration: z.object({ ok: z.boolean(), reason: z.string().nullable() }),
  postCopy: z.object({ ok: z.boolean(), reason: z.string().nullable() }),
  networks: z.array(z.string()),
  pools: z.array(z.string()),
  migrationAddress: z.string(),
  cpuLoad: z.number().nullable().describe('share of all cores, 0..1'),
  memoryUsedMiB: z.number().nullable(),
  lastReportAt: timeMs.nullable(),
  session: z.number().int(),
});
export type HostView = z.infer<typeof hostView>;

const boot = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('disk') }).strict(),
  z
    .object({
      kind: z.literal('kernel'),
      kernel: z.string().min(1).describe('absolute: a file of the host, copied into the pool; else a file in the pool'),
      initrd: z.string().min(1).nullable().describe('as the kernel'),
      append: z.string(),
    })
    .strict(),
]);

export const vmView = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(['creating', 'stopped', 'starting', 'running', 'stopping', 'crashed', 'deleting']),
  message: z.string().nullable().describe('why it crashed or could not start'),
  host: z.string(),
  hostState: z.enum(['up', 'silent']),
  cpus: z.number(),
  memoryMiB: z.number(),
  machine: z.string(),
  cpuModel: z.string(),
  boot: z.string(),
  disks: z.array(z.object({ pool: z.string(), file: z.string(), format: z.enum(['qcow2', 'raw']) })),
  nics: z.array(z.object({ network: z.string(), mac: z.string() })),
  address: z.string().nullable(),
  labels: z.record(z.string(), z.string()),
  generation: z.number().int(),
  migration: z.string().nullable(),
  cpuCores: z.number().nullable().describe('cores in use'),
  memoryResidentMiB: z.number().nullable(),
  createdAt: timeMs,
});
export type VmView = z.infer<typeof vmView>;

export const newVm = z
  .object({
    name,
    cpus: z.number().int().min(1).max(64).default(1),
    memoryMiB: z.number().int().min(64).max(4_194_304).default(512),
    image: z.string().nullable().default(null).describe('qcow2 or raw file on the host, copied into the pool'),
    diskMiB: z
      .number()
      .int()
      .min(1)
      .max(67_108_864)
      .nullable()
      .default(null)
      .describe('size of a blank disk, or grow the image to this'),
    boot: boot.default({ kind: 'disk' }),
    pool: z.string().default('default'),
    network: z.string().nullable().default('default').describe('null: no network card'),
    machine: z.string().default('pc-q35-7.2'),
    cpuModel: z.string().default('qemu64-v1'),
    address: z.string().nullable().default(null).describe('where a prober can reach it'),
    labels: z.record(z.string(), z.string()).default({}),
    host: ref.nullable().default(null).describe('null: the one with most room'),
    start: z.boolean().default(true),
  })
  .strict();
export type NewVm = z.input<typeof newVm>;

export const policyInput = z
  .object({
    maxDowntimeMs: z.number().int().min(1).max(2_000_000),
    maxBandwidthBytesPerSecond: z.number().int().min(125_000, 'at least 1Mbit').max(1e12).nullable(),
    deadlineMs: positiveMs.nullable(),
    autoConverge: z.boolean(),
    parallelStreams: z.number().int().min(0).max(64),
    compression: z.enum(['none', 'xbzrle', 'zstd']),
    whenNotConverging: z.enum(['fail', 'post-copy', 'pause']),
    shutdownTimeoutMs: positiveMs,
    forceOff: z.boolean(),
  })
  .partial()
  .strict();

export const migrateBody = z
  .object({
    to: ref.nullable().default(null).describe('null: the host with most room'),
    technique: z.enum(techniques).default('auto'),
    policy: policyInput.default({}),
    why: z.string().max(500).nullable().default(null),
    dryRun: z.boolean().default(false).describe('check everything, change nothing'),
  })
  .strict();
export type MigrateBody = z.input<typeof migrateBody>;

const measures = z.object({
  totalMs: z.number().nullable(),
  downtimeMs: z.number().nullable(),
  downtimeQemuMs: z.number().nullable(),
  blackoutMs: z.number().nullable(),
  bytes: z.number().nullable(),
  faults: z.number().nullable(),
  faultBlockedMs: z.number().nullable(),
  degradedMs: z.number().nullable(),
  throttlePercent: z.number().nullable(),
  firstPageMs: z.number().nullable(),
});

export const migrationSample = z.object({
  migration: z.string(),
  at: timeMs,
  phase: z.enum(phaseNames),
  round: z.number(),
  totalBytes: z.number(),
  remainingBytes: z.number(),
  sentBytes: z.number(),
  bandwidthBytesPerSecond: z.number(),
  dirtyBytesPerSecond: z.number(),
  downtimeLimitMs: z.number(),
  faults: z.number(),
  throttlePercent: z.number(),
});

export const migrationView = z.object({
  id: z.string(),
  vm: z.string().describe('id'),
  vmName: z.string(),
  source: z.string().describe('name of the host'),
  target: z.string().describe('name of the host'),
  technique: z.enum(techniques),
  endedInPostCopy: z.boolean(),
  switchedToPostCopy: z.object({ round: z.number(), because: z.string() }).nullable(),
  phase: z.enum(phaseNames),
  phaseSays: z.string(),
  cancellable: z.boolean(),
  ended: z.boolean(),
  guest: z.enum(['on-source', 'on-target', 'lost']).nullable().describe('where the guest is after a failure'),
  failure: z
    .object({ code: z.enum(failureCodes), message: z.string(), hint: z.string(), detail: z.string().optional() })
    .nullable(),
  policy: policyInput.required(),
  why: z.array(z.object({ by: z.string(), text: z.string(), at: timeMs })),
  startedAt: timeMs,
  endedAt: timeMs.nullable(),
  rounds: z.array(
    z.object({
      round: z.number(),
      durationMs: z.number(),
      bytes: z.number(),
      dirtyPages: z.number(),
      bandwidthBytesPerSecond: z.number(),
    }),
  ),
  measures,
  history: z.array(z.object({ phase: z.enum(phaseNames), at: timeMs, round: z.number().optional() })),
  sample: migrationSample.nullable().describe('the latest, while it runs'),
});
export type MigrationView = z.infer<typeof migrationView>;
export type MigrationSampleView = z.infer<typeof migrationSample>;

export const finding = z.object({
  severity: z.enum(['ok', 'warning', 'error']),
  about: z.string().describe('what was looked at, e.g. "host h1: post-copy"'),
  says: z.string(),
  mend: z.string().nullable().describe('what to do'),
});
export type Finding = z.infer<typeof finding>;

/** What the event stream carries. `id` is the store's revision; samples have none and cannot be asked for again. */
export const eventView = z.discriminatedUnion('type', [
  z.object({ type: z.literal('host'), at: timeMs, says: z.string(), host: hostView }),
  z.object({ type: z.literal('vm'), at: timeMs, says: z.string(), vm: vmView }),
  z.object({ type: z.literal('vm-removed'), at: timeMs, says: z.string(), id: z.string(), name: z.string() }),
  z.object({ type: z.literal('host-removed'), at: timeMs, says: z.string(), id: z.string(), name: z.string() }),
  z.object({ type: z.literal('migration'), at: timeMs, says: z.string(), migration: migrationView }),
  z.object({ type: z.literal('sample'), at: timeMs, says: z.string(), sample: migrationSample }),
  z.object({ type: z.literal('alarm'), at: timeMs, says: z.string(), about: z.string() }),
]);
export type EventView = z.infer<typeof eventView>;

export interface Endpoint {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly summary: string;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodType;
  readonly reply: z.ZodType;
  /** Status of success; 200 unless said. */
  readonly status?: number;
  /** `events`: server-sent events of the reply type. `tunnel`: the connection is upgraded to raw bytes. */
  readonly stream?: 'events' | 'tunnel';
}

const hostParams = z.object({ host: ref });
const vmParams = z.object({ vm: ref });
const migrationParams = z.object({ migration: ref });

export const endpoints = {
  getStatus: {
    method: 'GET',
    path: '/status',
    summary: 'Version, term and counts',
    reply: z.object({
      version: z.string(),
      term: z.number().int(),
      startedAt: timeMs,
      hosts: z.number().int(),
      vms: z.number().int(),
      openMigrations: z.number().int(),
    }),
  },
  listHosts: { method: 'GET', path: '/hosts', summary: 'All hosts', reply: z.array(hostView) },
  getHost: { method: 'GET', path: '/hosts/:host', summary: 'One host', params: hostParams, reply: hostView },
  cordonHost: {
    method: 'POST',
    path: '/hosts/:host/cordon',
    summary: 'Place nothing more on this host',
    params: hostParams,
    reply: hostView,
  },
  uncordonHost: {
    method: 'POST',
    path: '/hosts/:host/uncordon',
    summary: 'Let VMs be placed on this host again',
    params: hostParams,
    reply: hostView,
  },
  removeHost: {
    method: 'DELETE',
    path: '/hosts/:host',
    summary: 'Forget a host that is silent and holds no VM',
    params: hostParams,
    reply: z.object({ removed: z.string() }),
  },
  listVms: {
    method: 'GET',
    path: '/vms',
    summary: 'All VMs',
    query: z.object({ host: ref.optional() }).strict(),
    reply: z.array(vmView),
  },
  createVm: {
    method: 'POST',
    path: '/vms',
    summary: 'Create a VM, and start it unless told otherwise',
    body: newVm,
    reply: vmView,
    status: 201,
  },
  getVm: { method: 'GET', path: '/vms/:vm', summary: 'One VM', params: vmParams, reply: vmView },
  deleteVm: {
    method: 'DELETE',
    path: '/vms/:vm',
    summary: 'Delete a VM that is off; its disks are kept unless disks=delete',
    params: vmParams,
    query: z.object({ disks: z.enum(['keep', 'delete']).default('keep') }).strict(),
    reply: z.object({ deleting: z.string(), disksKept: z.array(z.string()) }),
    status: 202,
  },
  startVm: {
    method: 'POST',
    path: '/vms/:vm/start',
    summary: 'Start a VM, on its last host or another',
    params: vmParams,
    body: z.object({ host: ref.nullable().default(null) }).strict(),
    reply: vmView,
    status: 202,
  },
  stopVm: {
    method: 'POST',
    path: '/vms/:vm/stop',
    summary: 'Shut a VM down by its power button, or switch it off with force',
    params: vmParams,
    body: z.object({ force: z.boolean().default(false), timeoutMs: positiveMs.default(60_000) }).strict(),
    reply: vmView,
    status: 202,
  },
  migrateVm: {
    method: 'POST',
    path: '/vms/:vm/migrate',
    summary: 'Move a running VM to another host',
    params: vmParams,
    body: migrateBody,
    reply: migrationView,
    status: 202,
  },
  consoleVm: {
    method: 'GET',
    path: '/vms/:vm/console',
    summary: 'The serial console, as raw bytes after an upgrade',
    params: vmParams,
    reply: z.never(),
    stream: 'tunnel',
  },
  listMigrations: {
    method: 'GET',
    path: '/migrations',
    summary: 'Migrations, newest first',
    query: z
      .object({
        vm: ref.optional(),
        open: z.enum(['true', 'false']).optional(),
        limit: z.coerce.number().int().min(1).max(1000).default(50),
      })
      .strict(),
    reply: z.array(migrationView),
  },
  getMigration: {
    method: 'GET',
    path: '/migrations/:migration',
    summary: 'One migration with rounds, phases and measures',
    params: migrationParams,
    reply: migrationView,
  },
  cancelMigration: {
    method: 'POST',
    path: '/migrations/:migration/cancel',
    summary: 'Cancel; the guest goes on running on the source',
    params: migrationParams,
    reply: migrationView,
    status: 202,
  },
  recordBlackout: {
    method: 'PUT',
    path: '/migrations/:migration/blackout',
    summary: 'What an outside prober saw of a migration that has ended',
    params: migrationParams,
    body: z.object({ blackoutMs: z.number().min(0).max(86_400_000) }).strict(),
    reply: migrationView,
  },
  listEvents: {
    method: 'GET',
    path: '/events',
    summary: 'Changes as server-sent events; Last-Event-ID resumes',
    query: z.object({ migration: ref.optional(), samples: z.enum(['true', 'false']).default('true') }).strict(),
    reply: eventView,
    stream: 'events',
  },
  checkFleet: {
    method: 'GET',
    path: '/doctor',
    summary: 'What is wrong with the fleet and how to mend it',
    reply: z.array(finding),
  },
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
