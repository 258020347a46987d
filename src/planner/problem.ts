/**
 * The fleet as numbers: what the search works on, flat arrays only, so that a part of it can be given to another thread.
 * Not here: words (rules.ts), what a score is made of (score.ts), the state that changes (board.ts).
 */

/** Members of groups, row by row: the groups of VM v are `of[start[v]]` to before `of[start[v + 1]]`. */
export interface Groups {
  readonly start: Int32Array;
  readonly of: Int32Array;
}

export interface Problem {
  readonly hosts: number;
  readonly vms: number;
  /** What guests may hold there, at most: MiB, virtual CPUs, cores in use. */
  readonly memoryCap: Float64Array;
  readonly vcpuCap: Float64Array;
  readonly cpuCap: Float64Array;
  /** 1: the host takes part in spreads. */
  readonly counted: Uint8Array;
  /** 1: its VMs shall leave. */
  readonly leave: Uint8Array;
  readonly vmMemory: Float64Array;
  readonly vmVcpus: Float64Array;
  readonly vmCpu: Float64Array;
  /** What moving it costs, in units of the score. */
  readonly moveCost: Float64Array;
  /** Where it is before the plan; -1: on a host that is not part of this problem. */
  readonly home: Int32Array;
  /** Where the search begins. */
  readonly start: Int32Array;
  readonly movable: Uint8Array;
  /** VMs of one kind may be on the same hosts: `allowed[kind * hosts + host]`. */
  readonly kind: Int32Array;
  readonly allowed: Uint8Array;
  readonly apart: Groups;
  readonly together: Groups;
  readonly objective: Objective;
  readonly maxMoves: number;
  readonly maxMoveMiB: number;
}

/** A score that can be kept up to date: rows per metric, the VM's or host's values of all metrics side by side. */
export interface Objective {
  readonly metrics: number;
  /** Of the standard deviation of each metric over the counted hosts. */
  readonly weight: Float64Array;
  /** Added to a host's metric by a VM on it, before scaling: `amount[vm * metrics + metric]`. */
  readonly amount: Float64Array;
  /** Of a host without VMs, scaled already: `base[host * metrics + metric]`. */
  readonly base: Float64Array;
  readonly scale: Float64Array;
  /** Sums over counted hosts that are outside this problem: how many, per metric sum and sum of squares, as of `reference`. */
  readonly outside: { readonly hosts: number; readonly sum: Float64Array; readonly squares: Float64Array };
  /** Near the mean of each metric: sums are kept of differences from it, for accuracy. */
  readonly reference: Float64Array;
  /** Per unit above `limit` on a host. */
  readonly over: readonly { readonly metric: number; readonly limit: number; readonly weight: number }[];
  /** Of the largest value on any counted host. */
  readonly peak: { readonly metric: number; readonly weight: number } | null;
  /** Of each VM that is on a host it shall leave. */
  readonly stranded: Float64Array;
  /** Of each VM too many of an apart group on a host. */
  readonly conflict: number;
  /** Of each further host a together group is spread over. */
  readonly split: number;
  /** Of each host that has a VM. */
  readonly powered: Float64Array;
}
