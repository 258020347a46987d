/**
 * What server and agents say to each other, and agents among themselves. One JSON object a line on a channel that only
 * holders of the fleet's key can open (runtime/channel.ts). The agent dials.
 *
 *   agent  -> server   hello, fact (numbered), report, sample, measured, answer (to an order, to sleep), console data
 *   server -> agent    welcome, beat, order, ack (facts up to n are committed), neighbours, measure, sleep, console data
 *   agent  -> agent    join, go / go-reply, rejoin; relay: the channel is handed on to the server
 */
import { z } from 'zod';

/** Raised when the meaning of a message changes; a server talks to this and the one before. */
export const protocolVersion = 1;

// Orders, facts and specs are our own types, made by our own programs: the envelope is checked here, which message it
// is and its numbers; the inner record is typed (`z.custom`) rather than described a second time.
import type { Failure } from '../model/failure.ts';
import type { MemoryUse } from '../model/forecast.ts';
import type { Endpoint, GuardReport, HealthSign, HostInventory, HostLoad, LeaseSeen } from '../model/host.ts';
import type { HostId, MigrationId, TaskId, VmId } from '../model/ids.ts';
import type { MigrationSample, Policy, Technique } from '../model/migration.ts';
import type { TaskFact } from '../model/task.ts';
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
  /** The store's revision when it was sent: who has seen it can tell a store that went back in time. */
  readonly revision?: number;
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
  /** Warm up and hold: complete only when told to `switch`. Absent: an ordinary move. */
  readonly hold?: true;
}

/** One attempt of a task, as the agent needs it: nothing of it is kept on the host, the guest has it. */
export interface TaskJob {
  readonly task: TaskId;
  readonly attempt: number;
  /** Of the guest in which it may run. */
  readonly boot: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly limitMs: number;
  readonly outputLimitBytes: number;
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
    | {
        readonly kind: 'send';
        readonly job: MoveJob;
        readonly endpoint: Endpoint;
        readonly targetPeer: Endpoint;
        /** Other ways to the target's agent. */
        readonly otherPeers?: readonly Endpoint[];
      }
    | { readonly kind: 'cancel'; readonly migration: MigrationId }
    | { readonly kind: 'switch'; readonly migration: MigrationId }
    | { readonly kind: 'go'; readonly migration: MigrationId }
    | { readonly kind: 'roll-back'; readonly migration: MigrationId }
    | { readonly kind: 'release'; readonly migration: MigrationId }
    /**
     * `evenIfItRan`: the guest is lost and what is left of it must go; else a copy that ran is never ended by this.
     * `unlessWhole`: one that has got all its pages is not ended either; it has said so, and the move is over.
     */
    | {
        readonly kind: 'close';
        readonly migration: MigrationId;
        readonly evenIfItRan: boolean;
        readonly unlessWhole?: boolean;
      }
    /** `watch`: it was seen to run, so it is not begun any more, whatever the guest has forgotten. Each tells its end. */
    | { readonly kind: 'task'; readonly task: TaskJob; readonly want: 'run' | 'watch' | 'cancel' }
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
  | { readonly about: 'guest'; readonly fact: GuestFact }
  | { readonly about: 'task'; readonly fact: TaskFact };

/** A guest whose agent answers, and which boot of it that is: it can be given tasks. */
export interface ReadyGuest {
  readonly vm: VmId;
  readonly boot: string;
}

/** A guest that really runs on the host, as found when the agent connects. */
export interface FoundGuest {
  readonly vm: VmId;
  readonly generation: number;
  readonly state: string;
  readonly migration: MigrationId | null;
}

/** What a host's journal holds of a VM: for a server whose records are older than that. */
export interface KnownVm {
  readonly vm: VmId;
  readonly name: string;
  readonly generation: number;
  /** As FoundGuest's state; `none` for a guest that is not here any more. */
  readonly part: string;
  /** Is there a process? */
  readonly runs: boolean;
  readonly running: RunningSpec | null;
  readonly migration: MigrationId | null;
  readonly job: MoveJob | null;
  /** On the source's side of a move. */
  readonly targetPeer: Endpoint | null;
}

/** The newest revision of the store, in its newest term, that an order or a welcome came from. */
export interface StoreMark {
  readonly term: number;
  /** Drawn by the leader of that term: a store that went back may give the same term out again. */
  readonly termId?: string;
  readonly revision: number;
}

const record = <T>() => z.custom<T>((value) => typeof value === 'object' && value !== null);

/** The refusal that says nothing against the order: its time had run out by the host's clock. */
export const cameTooLate = 'it came too late';

export const fromAgent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('hello'),
    protocol: z.number().int(),
    version: z.string(),
    host: z.string(),
    inventory: record<HostInventory>(),
    guests: z.array(record<FoundGuest>()),
    /** The term of the server that it was welcome at and cannot reach any more: it waits for another to lead. */
    lostTerm: z.number().int().optional(),
    newestTerm: z.number().int(),
    known: z.array(record<KnownVm>()).optional(),
    mark: record<StoreMark>().optional(),
    session: z.number().int().optional(),
    at: z.number(),
  }),
  z.object({ type: z.literal('fact'), number: z.number().int(), fact: record<Fact>() }),
  z.object({
    type: z.literal('report'),
    load: record<HostLoad>(),
    guards: z.array(record<GuardReport>()).default([]),
    leases: z.array(record<LeaseSeen>()).default([]),
    health: z.array(record<HealthSign>()).default([]),
    ready: z.array(record<ReadyGuest>()).default([]),
  }),
  /** To `take-lease`. `renewed`: its holder lives; `too-early`: it has not run out for this host yet. */
  z.object({
    type: z.literal('lease-answer'),
    request: z.string(),
    result: z.enum(['taken', 'renewed', 'too-early', 'failed']),
    says: z.string(),
  }),
  /** To `sleep`. `ready`: it has no guest, starts none and has had its lease given back; `failed`: it could not suspend. */
  z.object({
    type: z.literal('sleep-answer'),
    request: z.string(),
    result: z.enum(['ready', 'refused', 'failed']),
    says: z.string(),
  }),
  /** To `measure`. Null: it could not be measured, and `says` why. */
  z.object({
    type: z.literal('measured'),
    request: z.string(),
    memory: record<MemoryUse>().nullable(),
    says: z.string(),
  }),
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
    revision: z.number().int().optional(),
    termId: z.string().optional(),
  }),
  /** `elsewhere`: nothing is wrong with the agent; another server leads. */
  z.object({ type: z.literal('rejected'), reason: z.string(), elsewhere: z.boolean().optional() }),
  z.object({ type: z.literal('order'), order: record<Order>() }),
  z.object({ type: z.literal('ack'), number: z.number().int() }),
  /** Once a second: a server that is not heard is not there, whatever the connection looks like. */
  z.object({ type: z.literal('beat') }),
  /** Who else there is: other ways to the server, and hosts whose leases this one watches. */
  z.object({
    type: z.literal('neighbours'),
    peers: z.array(record<Endpoint>()),
    watchLeasesOf: z.array(z.string()),
  }),
  /** Take the lease of a host that has not renewed it for longer than its lease time: its guests are proven gone. */
  z.object({
    type: z.literal('take-lease'),
    request: z.string(),
    term: z.number().int(),
    host: z.string(),
    poolId: z.string(),
    bootId: z.string(),
  }),
  /** Look at what this guest does with its memory. Said only to agents whose inventory says that they can. */
  z.object({
    type: z.literal('measure'),
    request: z.string(),
    vm: z.custom<VmId>((v) => typeof v === 'string'),
  }),
  /**
   * Only said to hosts whose inventory speaks of sleep. `prepare`: start nothing more and give the lease back; `suspend`: to memory,
   * now; `stay-awake`: take `prepare` back.
   */
  z.object({
    type: z.literal('sleep'),
    request: z.string(),
    term: z.number().int(),
    session: z.number().int(),
    /** As of orders. */
    expiresAt: z.number(),
    do: z.enum(['prepare', 'suspend', 'stay-awake']),
  }),
  /** Send a magic packet for these network cards: another host is to wake. As `sleep`, only to hosts that know it. */
  z.object({ type: z.literal('wake-other'), macs: z.array(z.string()) }),
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
  /** Post-copy broke off. `listen`: break off there too and listen for the rest; else only tell how it stands. */
  z.object({ type: z.literal('rejoin'), migration: z.string(), vm: z.string(), listen: z.boolean() }),
  /**
   * `listening`: at `endpoint`; `incomplete`: runs, pages are missing; `complete`: has every page; `not-switched`: it has not
   * got the execution state yet, and never ran; `gone`: ended, and never ran; `unknown`: nothing of this move is here.
   */
  z.object({
    type: z.literal('rejoin-reply'),
    migration: z.string(),
    result: z.enum(['listening', 'incomplete', 'complete', 'not-switched', 'gone', 'unknown']),
    endpoint: record<Endpoint>().nullable(),
    says: z.string(),
  }),
  /** The way to the server is cut: from now on this channel is one to it, each message handed on as it is. */
  z.object({ type: z.literal('relay') }),
]);
export type PeerMessage = z.infer<typeof peerMessage>;
