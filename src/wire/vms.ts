/** VMs over the API: what is shown of them, what can be asked of them; a move begins here too. Not here: its course (migrations.ts). */
import { z } from 'zod';
import { techniques } from '../model/migration.ts';
import { defaultPriority } from '../model/vm.ts';
import { after, dryRun, name, ref, timeMs, type Endpoint } from './endpoint.ts';
import { forecastBody, forecastTable } from './forecast.ts';
import { labelChanges } from './labels.ts';
import { migrationView } from './migrations.ts';
import { placingChanges, placingView } from './placing.ts';
import { policyInput, positiveMs } from './policy.ts';

const recovery = z
  .enum(['restart', 'manual'])
  .describe('when its host is lost: started elsewhere, or left for a person');
const restart = z
  .enum(['never', 'on-failure', 'always'])
  .describe('started again when its guest died (on-failure), also when it powered itself off (always)');
const priority = z.number().int().min(0).max(1000).describe('larger is started first when many must be');

export const vmView = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(['creating', 'stopped', 'starting', 'running', 'stopping', 'waiting', 'crashed', 'deleting']),
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
  recovery,
  restart,
  priority,
  placing: placingView,
  cpuCores: z.number().nullable().describe('cores in use'),
  memoryResidentMiB: z.number().nullable(),
  createdAt: timeMs,
});
export type VmView = z.infer<typeof vmView>;

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
    host: ref.nullable().default(null).describe('null: where it fits best'),
    recovery: recovery.default('restart'),
    restart: restart.default('on-failure'),
    priority: priority.default(defaultPriority),
    placing: placingChanges.default({}),
    start: z.boolean().default(true),
    dryRun,
  })
  .strict();
export type NewVm = z.input<typeof newVm>;

export const migrateBody = z
  .object({
    to: ref.nullable().default(null).describe('null: where it fits best'),
    technique: z.enum(techniques).default('auto'),
    policy: policyInput.default({}),
    why: z.string().max(500).nullable().default(null),
    dryRun,
    holdMs: positiveMs
      .nullable()
      .default(null)
      .describe('warm up and hold ready for so long; it completes only when told to, and is cancelled afterwards'),
  })
  .strict();
export type MigrateBody = z.input<typeof migrateBody>;

const vmChanges = z
  .object({ recovery, restart, priority, placing: placingChanges, labels: labelChanges })
  .partial()
  .strict()
  .refine((changes) => Object.keys(changes).length > 0, 'nothing is to be changed');

const vmParams = z.object({ vm: ref });

export const vmEndpoints = {
  listVms: {
    method: 'GET',
    path: '/vms',
    role: 'viewer',
    summary: 'All VMs',
    query: z
      .object({ host: ref.optional(), limit: z.coerce.number().int().min(1).max(20_000).default(20_000), after })
      .strict(),
    reply: z.array(vmView),
  },
  createVm: {
    method: 'POST',
    path: '/vms',
    role: 'operator',
    idempotent: true,
    summary: 'Create a VM, and start it unless told otherwise',
    body: newVm,
    reply: vmView.extend({
      placedBecause: z.string().nullable().default(null).describe('why there, when no host was said'),
    }),
    status: 201,
  },
  getVm: {
    method: 'GET',
    path: '/vms/:vm',
    role: 'viewer',
    versioned: true,
    summary: 'One VM',
    params: vmParams,
    reply: vmView,
  },
  updateVm: {
    method: 'PATCH',
    path: '/vms/:vm',
    role: 'operator',
    versioned: true,
    summary: 'Change what becomes of a VM when its host is lost, where it may be, and its labels',
    params: vmParams,
    body: vmChanges,
    reply: vmView,
  },
  deleteVm: {
    method: 'DELETE',
    path: '/vms/:vm',
    role: 'operator',
    summary: 'Delete a VM that is off; its disks are kept unless disks=delete',
    params: vmParams,
    query: z
      .object({
        disks: z.enum(['keep', 'delete']).default('keep'),
        dryRun: z.enum(['true', 'false']).default('false').describe('check everything, change nothing'),
      })
      .strict(),
    reply: z.object({ deleting: z.string(), disksKept: z.array(z.string()) }),
    status: 202,
  },
  startVm: {
    method: 'POST',
    path: '/vms/:vm/start',
    role: 'operator',
    summary: 'Start a VM, on its last host or another',
    params: vmParams,
    body: z.object({ host: ref.nullable().default(null), dryRun }).strict(),
    reply: vmView,
    status: 202,
  },
  stopVm: {
    method: 'POST',
    path: '/vms/:vm/stop',
    role: 'operator',
    summary: 'Shut a VM down by its power button, or switch it off with force',
    params: vmParams,
    body: z.object({ force: z.boolean().default(false), timeoutMs: positiveMs.default(60_000), dryRun }).strict(),
    reply: vmView,
    status: 202,
  },
  migrateVm: {
    method: 'POST',
    path: '/vms/:vm/migrate',
    role: 'operator',
    idempotent: true,
    summary: 'Move a running VM to another host',
    params: vmParams,
    body: migrateBody,
    reply: migrationView,
    status: 202,
  },
  forecastVm: {
    method: 'POST',
    path: '/vms/:vm/forecast',
    role: 'viewer',
    summary: 'What a move would cost by each technique, measured now; nothing is changed',
    params: vmParams,
    body: forecastBody,
    reply: forecastTable,
  },
  consoleVm: {
    method: 'GET',
    path: '/vms/:vm/console',
    role: 'operator',
    summary: 'The serial console, as raw bytes after an upgrade',
    params: vmParams,
    reply: z.never(),
    stream: 'tunnel',
  },
} as const satisfies Record<string, Endpoint>;
