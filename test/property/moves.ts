/** Moves and facts to make properties of: shared by the tests of `step`. */
import fc from 'fast-check';
import type { Failure } from '../../src/model/failure.ts';
import type { HostId, MigrationId, VmId } from '../../src/model/ids.ts';
import { noMeasures } from '../../src/model/migration.ts';
import type { Migration, Technique } from '../../src/model/migration.ts';
import { step } from '../../src/migration/step.ts';
import type { MigrationFact } from '../../src/migration/step.ts';
import { completePolicy } from '../../src/migration/techniques.ts';

// The casts: ids are opaque strings, any will do here.
export const id = 'mig_1' as MigrationId;
export const startedAt = 1_000;
export const failure: Failure = { code: 'link-lost', message: 'It broke.', hint: 'Mend it.' };

export function reserved(technique: Technique): Migration {
  const spec = {
    cpus: 1,
    memoryMiB: 64,
    machine: 'm',
    cpuModel: 'c',
    boot: { kind: 'disk' },
    disks: [],
    nics: [],
  } as const;
  return {
    schema: 1,
    id,
    vm: 'vm_1' as VmId,
    vmName: 'web1',
    source: 'host_1' as HostId,
    target: 'host_2' as HostId,
    technique,
    policy: completePolicy(technique, {}),
    why: [],
    generation: 2,
    memoryMiB: 64,
    running: { argvVersion: 1, argv: [], spec },
    startedAt,
    cancelRequestedAt: null,
    giveUp: null,
    evidence: {},
    rounds: [],
    switchedToPostCopy: null,
    measures: noMeasures,
    history: [{ phase: 'reserved', at: startedAt }],
    phase: 'reserved',
  };
}

export type Body = MigrationFact extends infer F
  ? F extends MigrationFact
    ? Omit<F, 'migration' | 'at'>
    : never
  : never;
export const fact = (body: Body, at: number): MigrationFact => ({ ...body, migration: id, at });

export const live: readonly Technique[] = ['pre-copy', 'hybrid', 'auto', 'post-copy'];
export const round = (n: number): Body => ({
  kind: 'round',
  round: { round: n, durationMs: 10, bytes: 100, dirtyPages: 5, bandwidthBytesPerSecond: 1e6 },
});
export const listening: Body = { kind: 'listening', endpoint: { address: 'a', port: 1 } };

export const timed = (bodies: readonly Body[]) => bodies.map((body, i) => fact(body, startedAt + 10 * (i + 1)));
export const run = (technique: Technique, facts: readonly MigrationFact[]) => facts.reduce(step, reserved(technique));
/** Every fact there is, for sequences that nobody would send. */
export const anyFact: fc.Arbitrary<Body> = fc.constantFrom<Body>(
  listening,
  { kind: 'sending' },
  round(1),
  round(2),
  { kind: 'switching', round: 1, because: 'x' },
  { kind: 'stopped', for: 'stop-and-copy' },
  { kind: 'stopped', for: 'post-copy' },
  { kind: 'state-transferred' },
  { kind: 'pre-paging' },
  { kind: 'handed-over' },
  { kind: 'resumed', withFaults: false },
  { kind: 'resumed', withFaults: true },
  { kind: 'all-pages-arrived' },
  { kind: 'powered-off' },
  { kind: 'released' },
  { kind: 'closed' },
  { kind: 'link-lost' },
  { kind: 'link-restored' },
  { kind: 'measured', measures: { bytes: 1 } },
  { kind: 'source-running', failure: null },
  { kind: 'source-running', failure },
  { kind: 'source-lost', failure },
  { kind: 'target-failed', failure },
  { kind: 'target-lost', failure },
  { kind: 'gave-up', failure },
  { kind: 'source-fenced', failure },
  { kind: 'target-fenced', failure },
);
