/** Hosts over the API: what is shown of them, what can be asked of them. Not here: drains, sleep, power controllers. */
import { z } from 'zod';
import { drainStates } from './drains.ts';
import { dryRun, ref, timeMs, type Endpoint } from './endpoint.ts';
import { sleepView } from './energy.ts';
import { labelChanges } from './labels.ts';
import { powerBody, powerView } from './power.ts';
import { fenceProof, recoveryView } from './recovery.ts';

export const hostView = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(['up', 'silent']),
  cordoned: z.boolean(),
  drain: z.enum(drainStates).nullable().default(null).describe('state of its newest drain; null: none, or it is over'),
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
  sickness: z
    .object({ severity: z.enum(['suspect', 'failing']), at: timeMs, by: z.string(), because: z.string() })
    .nullable()
    .describe('what speaks against the host, said by a person or by itself'),
  lastReportAt: timeMs.nullable(),
  session: z.number().int(),
  power: z.string().nullable().describe('the power controller, e.g. "ipmi 10.0.0.5:623 as admin"'),
  fenced: z
    .object({ at: timeMs, proof: fenceProof, by: z.string(), because: z.string() })
    .nullable()
    .describe('proven to run no guests, and not back yet'),
  sleep: sleepView.nullable().default(null).describe('null: nobody ever spoke of its sleep'),
});
export type HostView = z.infer<typeof hostView>;

const hostParams = z.object({ host: ref });

export const hostEndpoints = {
  listHosts: { method: 'GET', path: '/hosts', role: 'viewer', summary: 'All hosts', reply: z.array(hostView) },
  getHost: {
    method: 'GET',
    path: '/hosts/:host',
    role: 'viewer',
    versioned: true,
    summary: 'One host',
    params: hostParams,
    reply: hostView,
  },
  updateHost: {
    method: 'PATCH',
    path: '/hosts/:host',
    role: 'operator',
    versioned: true,
    summary: 'Change the labels of a host',
    params: hostParams,
    body: z.object({ labels: labelChanges }).strict(),
    reply: hostView,
  },
  cordonHost: {
    method: 'POST',
    path: '/hosts/:host/cordon',
    role: 'operator',
    summary: 'Place nothing more on this host',
    params: hostParams,
    reply: hostView,
  },
  uncordonHost: {
    method: 'POST',
    path: '/hosts/:host/uncordon',
    role: 'operator',
    summary: 'Let VMs be placed on this host again',
    params: hostParams,
    reply: hostView,
  },
  fenceHost: {
    method: 'POST',
    path: '/hosts/:host/fenced',
    role: 'operator',
    summary: 'Say that a silent host is off; its VMs are started elsewhere',
    params: hostParams,
    body: z
      .object({
        because: z.string().min(1).max(500).describe('how you know'),
        force: z.boolean().default(false).describe('also against a lease that is seen renewed'),
        dryRun,
      })
      .strict(),
    reply: recoveryView,
  },
  reportFailing: {
    method: 'POST',
    path: '/hosts/:host/report-failing',
    role: 'operator',
    summary: 'Say that a host is sick: its VMs are held ready to leave (suspect), or leave now (failing)',
    params: hostParams,
    body: z.object({ severity: z.enum(['suspect', 'failing']), because: z.string().min(1).max(500) }).strict(),
    reply: hostView,
  },
  reportWell: {
    method: 'POST',
    path: '/hosts/:host/report-well',
    role: 'operator',
    summary: 'Take the word back: moves that are held ready are cancelled',
    params: hostParams,
    reply: hostView,
  },
  removeHost: {
    method: 'DELETE',
    path: '/hosts/:host',
    role: 'admin',
    summary: 'Forget a host that is silent and holds no VM',
    params: hostParams,
    reply: z.object({ removed: z.string(), disksLeft: z.array(z.string()).default([]) }),
  },
  getHostPower: {
    method: 'GET',
    path: '/hosts/:host/power',
    role: 'viewer',
    summary: "Read a host's power from its controller",
    params: hostParams,
    reply: powerView,
  },
  setHostPower: {
    method: 'PUT',
    path: '/hosts/:host/power',
    role: 'admin',
    summary: 'Say by which controller a host is switched off and on; read once before it is stored',
    params: hostParams,
    body: powerBody,
    reply: hostView,
  },
  unsetHostPower: {
    method: 'DELETE',
    path: '/hosts/:host/power',
    role: 'admin',
    summary: "Forget a host's power controller",
    params: hostParams,
    reply: hostView,
  },
  switchHostPower: {
    method: 'POST',
    path: '/hosts/:host/power',
    role: 'operator',
    summary: 'Switch a host hard off or on; what is answered was read back',
    params: hostParams,
    body: z
      .object({ to: z.enum(['on', 'off']), force: z.boolean().default(false).describe('also while guests run there') })
      .strict(),
    reply: powerView,
  },
} as const satisfies Record<string, Endpoint>;
