/** What the parts of an agent share: made once in main.ts, handed on as an argument. */
import type { Hypervisor } from '../hypervisor/hypervisor.ts';
import type { MigrationSample } from '../model/migration.ts';
import type { Endpoint } from '../model/host.ts';
import type { VmSpec } from '../model/vm.ts';
import type { Channel } from '../runtime/channel.ts';
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
  /** Opens a channel to the server or to another agent. @throws Error with the reason */
  readonly dial: (to: Endpoint, options: { timeoutMs: number; signal?: AbortSignal }) => Promise<Channel>;
  /** Where guests' memory is received. */
  readonly migrationAddress: string;
  /** All of them, the preferred one first; absent: just the one. */
  readonly migrationAddresses?: readonly string[];
  /** Why a guest of this spec would be killed on this host for want of a lease; null: it would not. */
  readonly leaseTrouble: (spec: VmSpec) => string | null;
  /** Streams a sample of a running move; lost when no server listens. */
  readonly sample: (sample: MigrationSample) => void;
}
