/**
 * A fleet as the planner sees it: hosts, VMs, what they use, and the rules, at one moment. The same words are the snapshot file
 * (wire/fleet.ts): export, fixture, bug report and what-if are one thing. Not here: what becomes of it (plan.ts).
 */
import type { Recovery } from './vm.ts';

export interface FleetSnapshot {
  readonly version: 1;
  /** ms since the epoch; null: not known, so no VM counts as moved lately. */
  readonly takenAt: number | null;
  readonly hosts: readonly SnapshotHost[];
  readonly vms: readonly SnapshotVm[];
  readonly settings: FleetSettings;
}

/**
 * `up`: takes guests. `cordoned`: keeps its guests, takes no more. `draining`: its guests shall leave. `silent`: nobody knows
 * what it does; nothing goes there, nothing can leave by a live move. `asleep`: switched off and able to come back.
 */
export type SnapshotHostState = 'up' | 'cordoned' | 'draining' | 'silent' | 'asleep';

export interface SnapshotHost {
  readonly name: string;
  readonly state: SnapshotHostState;
  readonly cpus: number;
  /** Speed of one of its CPUs; 1 is the fleet's usual one. Load is counted in usual cores. */
  readonly cpuSpeed: number;
  readonly memoryMiB: number;
  /** Of it, what guests may not use: the host's own, and moves under way. */
  readonly reservedMiB: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly accel: 'kvm' | 'tcg';
  /** Guest CPU models it can run; null: not known, taken as all. */
  readonly cpuModels: readonly string[] | null;
  readonly machines: readonly string[];
  readonly networks: readonly string[];
  readonly pools: readonly string[];
  /** Which pool each name stands for here, as far as known: two hosts share a pool when its identity is the same. */
  readonly poolIds: Readonly<Record<string, string>>;
  /** Why no live move may leave or reach it; null: they may. */
  readonly noLiveMoves: string | null;
  readonly linkBytesPerSecond: number;
  /** What it draws at evenly spaced loads from 0 to 100 %, two points or more; null: not known. */
  readonly watts: readonly number[] | null;
}

export interface SnapshotVm {
  readonly name: string;
  readonly host: string;
  /** A VM that does not run holds no room and is not moved. */
  readonly running: boolean;
  readonly cpus: number;
  readonly memoryMiB: number;
  /** What a move has to send at least once. */
  readonly memoryInUseMiB: number;
  readonly dirtyBytesPerSecond: number;
  readonly load: VmLoad;
  readonly labels: Readonly<Record<string, string>>;
  readonly machine: string;
  readonly cpuModel: string;
  /** It goes on only under this; null: under each. */
  readonly accel: 'kvm' | 'tcg' | null;
  readonly networks: readonly string[];
  readonly pools: readonly string[];
  /** Hosts it may be on; null: all. */
  readonly pinnedTo: readonly string[] | null;
  /** Groups of which no two VMs may share a host. */
  readonly apart: readonly string[];
  /** Groups whose VMs share one host. */
  readonly together: readonly string[];
  readonly cannotMoveLive: string | null;
  /** A move of it is under way. */
  readonly moving: boolean;
  /** Larger goes first, 0 to 1000. */
  readonly priority: number;
  readonly recovery: Recovery;
  readonly lastMovedAt: number | null;
}

/** Smoothed by whoever takes the snapshot. */
export interface VmLoad {
  /** Usual cores in use. */
  readonly cpuCores: number;
  /** Means of five minutes each, the newest last; absent: not known. */
  readonly recentCpuCores?: readonly number[] | undefined;
  /** Memory the guest really uses. */
  readonly memoryMiB: number;
  readonly diskBytesPerSecond: number;
  readonly netBytesPerSecond: number;
}

export interface FleetSettings {
  /** Virtual CPUs per CPU of a host, at most. */
  readonly vcpuRatio: number;
  /** Share of a host's CPUs that its guests may use after a move there. */
  readonly cpuLimit: number;
  /** So many hosts may die at once and what they ran still finds room. */
  readonly hostFailuresTolerated: number;
  /** A VM that was moved is left alone for so long by balance and consolidation. */
  readonly dwellMs: number;
  /** Moves that one host sends or receives at once. */
  readonly movesPerHost: number;
  /** What a move has to bring: 1 is usual, more is more cautious, 0 takes any gain. */
  readonly caution: number;
  /** Other weights for parts of the score, by name. */
  readonly weights: Readonly<Record<string, number>>;
}

export const defaultFleetSettings: FleetSettings = {
  vcpuRatio: 4,
  cpuLimit: 0.8,
  hostFailuresTolerated: 0,
  dwellMs: 600_000,
  movesPerHost: 2,
  caution: 1,
  weights: {},
};
