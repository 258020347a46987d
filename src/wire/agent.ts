/**
 * What server and agents say to each other, and agents among themselves. One JSON object a line on a channel that only
 * holders of the fleet's key can open (runtime/channel.ts). The agent dials.
 *
 *   agent  -> server   hello, fact (numbered), report, sample, answer (to an order), console data
 *   server -> agent    welcome, order, ack (facts up to n are committed), console data
 *   agent  -> agent    go / go-reply
 */
import { z } from 'zod';

/** Raised when the meaning of a message changes; a server talks to this and the one before. */
export const protocolVersion = 1;

// Orders, facts and specs are our own types, made by our own programs: the envelope is checked here, which message it
// is and its numbers; the inner record is typed (`z.custom`) rather than described a second time.
import type { Failure } from '../model/failure.ts';
import type { Endpoint, HostInventory, HostLoad } from '../model/host.ts';
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import type { MigrationSample, Policy, Technique } from '../model/migration.ts';
import type { Provision, RunningSpec, VmSpec } from '../model/vm.ts';
import type { MigrationFact } from '../migration/step.ts';

/** Who gives the order and until when; an agent refuses what is older than the newest it has seen, or late. */
export interface OrderStamp {
  readonly id: string;
  readonly term: number;
  readonly session: number;
  readonly vm: VmId;
  readonly generation: number;
  /** ms since the epoch by the host's clock, which the server knows from its reports. */
  readonly expiresAt: number;
}

/** What both ends need to know of a move before it starts. Journaled by the agent that carries it out. */
export interface MoveJob {
  readonly migration: MigrationId;
  readonly vmName: string;
  readonly technique: Technique;
  readonly policy: Policy;
  readonly running: RunningSpec;
  readonly postCopy: boolean;
  readonly startedAt: number;
}

export type Order = OrderStamp &
  (
    | { readonly kind: 'provision'; readonly provision: readonly Provision[] }
    /** `running` null: freeze it now from the spec. */
    | { readonly kind: 'start'; readonly name: string; readonly spec: VmSpec; readonly running: RunningSpec | null }
    | { readonly kind: 'stop'; readonly force: boolean; readonly timeoutMs: number }
    /** Take over the generation: this guest is the right one. */
    | { readonly kind: 'keep' }
    /** This guest is outdated: another decision was taken since. */
    | { readonly kind: 'discard' }
    | { readonly kind: 'remove'; readonly provision: readonly Provision[]; readonly disks: 'keep' | 'delete' }
    | { readonly kind: 'receive'; readonly job: MoveJob; readonly sourcePeer: Endpoint }
    | { readonly kind: 'send'; readonly job: MoveJob; readonly endpoint: Endpoint; readonly targetPeer: Endpoint }
    | { readonly kind: 'cancel'; readonly migration: MigrationId }
    | { readonly kind: 'go'; readonly migration: MigrationId }
    | { readonly kind: 'roll-back'; readonly migration: MigrationId }
    | { readonly kind: 'release'; readonly migration: MigrationId }
    /** `evenIfItRan`: the guest is lost and what is left of it must go; else a copy that ran is never ended by this. */
    | { readonly kind: 'close'; readonly migration: MigrationId; readonly evenIfItRan: boolean }
    | { readonly kind: 'power-off'; readonly job: MoveJob }
    | { readonly kind: 'power-on'; readonly job: MoveJob }
  );
export type OrderKind = Order['kind'];

/** What an agent learnt about a guest outside of any migration. */
export type GuestFact = { readonly vm: VmId; readonly generation: number; readonly at: number } & (
  | { readonly kind: 'provisioned' }
  | { readonly kind: 'provision-failed'; readonly failure: Failure }
  | { readonly kind: 'started'; readonly running: RunningSpec }
  | { readonly kind: 'start-failed'; readonly failure: Failure }
  /** Its process is gone. */
  | { readonly kind: 'ended'; readonly how: 'powered-off' | 'stopped' | 'died'; readonly message: string }
  | { readonly kind: 'stop-ignored'; readonly message: string }
  | { readonly kind: 'removed' }
  | { readonly kind: 'panicked' }
);

export type Fact =
  | { readonly about: 'migration'; readonly fact: MigrationFact }
  | { readonly about: 'guest'; readonly fact: GuestFact };

/** A guest that really runs on the host, as found when the agent connects. */
export interface FoundGuest {
  readonly vm: VmId;
  readonly generation: number;
  readonly state: string;
  readonly migration: MigrationId | null;
}

const record = <T>() => z.custom<T>((value) => typeof value === 'object' && value !== null);

export const fromAgent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('hello'),
    protocol: z.number().int(),
    version: z.string(),
    host: z.string(),
    inventory: record<HostInventory>(),
    guests: z.array(record<FoundGuest>()),
    newestTerm: z.number().int(),
    at: z.number(),
  }),
  z.object({ type: z.literal('fact'), number: z.number().int(), fact: record<Fact>() }),
  z.object({ type: z.literal('report'), load: record<HostLoad>() }),
  z.object({ type: z.literal('sample'), sample: record<MigrationSample>() }),
  z.object({ type: z.literal('answer'), order: z.string(), refused: z.string().nullable() }),
  z.object({ type: z.literal('console-data'), stream: z.string(), data: z.string() }),
  z.object({ type: z.literal('console-end'), stream: z.string(), reason: z.string() }),
]);
export type FromAgent = z.infer<typeof fromAgent>;

export const toAgent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('welcome'),
    hostId: z.custom<HostId>((v) => typeof v === 'string'),
    term: z.number().int(),
    session: z.number().int(),
  }),
  z.object({ type: z.literal('rejected'), reason: z.string() }),
  z.object({ type: z.literal('order'), order: record<Order>() }),
  z.object({ type: z.literal('ack'), number: z.number().int() }),
  z.object({ type: z.literal('console-open'), stream: z.string(), vm: z.custom<VmId>((v) => typeof v === 'string') }),
  z.object({ type: z.literal('console-data'), stream: z.string(), data: z.string() }),
  z.object({ type: z.literal('console-end'), stream: z.string(), reason: z.string() }),
]);
export type ToAgent = z.infer<typeof toAgent>;

/** The direct channel between the two agents of a move: the handover's second step. */
export const peerMessage = z.discriminatedUnion('type', [
  z.object({ type: z.literal('join'), migration: z.string(), generation: z.number().int() }),
  z.object({ type: z.literal('go'), migration: z.string(), generation: z.number().int(), handedOverAt: z.number() }),
  /** `gone-unrun`: the copy is gone and its journal proves that it never ran: the source may roll back. */
  z.object({
    type: z.literal('go-reply'),
    migration: z.string(),
    result: z.enum(['continued', 'gone-unrun', 'not-ready', 'unknown']),
  }),
  z.object({ type: z.literal('joined'), migration: z.string() }),
]);
export type PeerMessage = z.infer<typeof peerMessage>;
