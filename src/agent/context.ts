/** What the parts of an agent share: made once in main.ts, handed on as an argument. */
import type { Hypervisor } from '../hypervisor/hypervisor.ts';
import type { MigrationSample } from '../model/migration.ts';
import type { FleetKey } from '../runtime/channel.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Disks } from './disks.ts';
import type { Facts } from './facts.ts';
import type { Journal } from './journal.ts';
import type { Network } from './network.ts';

export interface AgentContext {
  readonly hostName: string;
  readonly hypervisor: Hypervisor;
  readonly journal: Journal;
  readonly facts: Facts;
  readonly network: Network;
  readonly disks: Disks;
  readonly clock: Clock;
  readonly log: Log;
  readonly fleetKey: FleetKey;
  /** Where guests' memory is received. */
  readonly migrationAddress: string;
  /** Streams a sample of a running move; lost when no server listens. */
  readonly sample: (sample: MigrationSample) => void;
}
