/** One placement looked at by Drover's own score and rules: what it would be with some VMs elsewhere, whether one may go there. */
import type { FleetSnapshot, SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { Score } from '../model/plan.ts';
import { Board } from './board.ts';
import { problemOf } from './compile.ts';
import { fleetOf, ordinaryLook, type Fleet } from './fleet.ts';
import { nowhere } from './place.ts';
import { mayBeThere, mayMove, type Broken } from './rules.ts';
import { Spare, noSpareLeft } from './spare.ts';
import { droverParts, objectiveOf, scoreOf } from './score.ts';

/** The score as it is, or with some VMs elsewhere: names of hosts by name of VM. */
export function scoreWith(snapshot: FleetSnapshot, elsewhere: ReadonlyMap<string, string> = new Map()): Score {
  const fleet = fleetOf(snapshot);
  const at = Int32Array.from(fleet.at, (host, v) => {
    const to = elsewhere.get(fleet.vms[v]!.name);
    return to === undefined ? host : (fleet.hostIndex.get(to) ?? host);
  });
  return scoreOf(fleet, droverParts(fleet), at);
}

/** For each of these moves, which have been made: by how much the score would be larger with that VM back at its source. */
export function stayingCosts(
  after: FleetSnapshot,
  moves: readonly { readonly vm: string; readonly from: string }[],
): number[] {
  const judge = new Judge(after);
  return moves.map(({ vm, from }) => -judge.gainOf(new Map([[vm, from]])));
}

/** A placement of which much is asked: it is looked through once, and then each answer costs little, however large the fleet. */
export class Judge {
  readonly fleet: Fleet;
  readonly board: Board;

  constructor(snapshot: FleetSnapshot) {
    this.fleet = fleetOf(snapshot, { ...ordinaryLook, ignoreDwell: true });
    const objective = objectiveOf(this.fleet, droverParts(this.fleet));
    this.board = new Board(problemOf(this.fleet, objective, { budget: {}, moveCost: () => 0 }));
  }

  vm(name: string): SnapshotVm | undefined {
    const v = this.fleet.vmIndex.get(name);
    return v === undefined ? undefined : this.fleet.vms[v];
  }

  host(name: string): SnapshotHost | undefined {
    const h = this.fleet.hostIndex.get(name);
    return h === undefined ? undefined : this.fleet.hosts[h];
  }

  /**
   * Why the VM may not go there now by a live move; null: it may. Who asks has begun something already: that it was moved a
   * moment ago does not count.
   */
  whyNotThere(vm: string, to: string): Broken | null {
    const { fleet, board } = this;
    const [v, h] = [fleet.vmIndex.get(vm), fleet.hostIndex.get(to)];
    if (v === undefined || h === undefined) {
      return { rule: 'gone', says: `${v === undefined ? vm : to} is not there any more.` };
    }
    return mayMove(fleet, v) ?? mayBeThere(fleet, board, v, h);
  }

  /** By how much the score falls with these VMs elsewhere. @param elsewhere names of hosts by name of VM */
  gainOf(elsewhere: ReadonlyMap<string, string>): number {
    const before = this.board.score();
    const back = [...elsewhere].map(([vm, to]) => this.#move(vm, to));
    const after = this.board.score();
    for (const undo of back.toReversed()) undo();
    return before - after;
  }

  /** From now on it counts there. */
  moved(vm: string, to: string): void {
    this.#move(vm, to);
  }

  #move(vm: string, to: string): () => void {
    const [v, h] = [this.fleet.vmIndex.get(vm), this.fleet.hostIndex.get(to)];
    if (v === undefined || h === undefined) return () => {};
    const from = this.board.at[v]!;
    this.board.move(v, h);
    return () => this.board.move(v, from);
  }
}

export interface Choice {
  readonly host: string;
  /** Of the fleet with the VM there. */
  readonly score: number;
  /** Every rule that it would break there, the first of each kind; empty: none. */
  readonly broken: readonly Broken[];
}

/** A VM that is to run somewhere; `host` null: it is nowhere yet. */
export type Homeless = Omit<SnapshotVm, 'host'> & { readonly host: string | null };

/** What each host that takes guests would mean for a VM, nobody else moving. In the order of the snapshot. */
export function choices(snapshot: FleetSnapshot, vm: Homeless): Choice[] {
  const whole: FleetSnapshot = {
    ...snapshot,
    hosts: vm.host === null ? [...snapshot.hosts, nowhere] : snapshot.hosts,
    vms: [...snapshot.vms.filter(({ name }) => name !== vm.name), { ...vm, host: vm.host ?? nowhere.name }],
  };
  // Of the limits of CPUs only one would be named, and none after it: they are asked by themselves.
  const unlimited = { ...whole, settings: { ...whole.settings, vcpuRatio: Infinity, cpuLimit: Infinity } };
  const strict = new Judge(whole);
  const v = strict.fleet.vmIndex.get(vm.name);
  if (v === undefined) return [];
  let loose: Judge | undefined;
  /** Every rule it breaks there: what else is asked only where a limit of CPUs stood before it. */
  const brokenOn = (h: number): Broken[] => {
    const broken = mayBeThere(strict.fleet, strict.board, v, h);
    if (broken === null) return [];
    if (broken.rule !== 'vcpus' && broken.rule !== 'cpu') return [broken];
    loose ??= new Judge(unlimited);
    const besides = mayBeThere(loose.fleet, loose.board, v, h);
    return besides === null ? [broken] : [besides, broken];
  };
  const spare = new Spare(strict.fleet, strict.board);
  return whole.hosts.flatMap(({ name, state }, h) => {
    if (state !== 'up') return [];
    const broken = brokenOn(h);
    const score = strict.board.scoreAfter(v, h);
    return [{ host: name, score, broken: [...broken, ...spareLost(strict.board, spare, v, h, name)] }];
  });
}

/** Room for the VMs of hosts that die is a matter of the whole fleet: it is looked at with the VM there. */
function spareLost(board: Board, spare: Spare, vm: number, host: number, name: string): Broken[] {
  const before = board.at[vm]!;
  board.move(vm, host);
  const isKept = spare.isKept(board);
  board.move(vm, before);
  return isKept ? [] : [noSpareLeft(name)];
}

/** Memory of VMs that would find no room, were the hosts to die that it is worst for; 0: the fleet holds what it is set to, as it is. */
export function missingSpareMiB(snapshot: FleetSnapshot): number {
  const { fleet, board } = new Judge(snapshot);
  return new Spare(fleet, board).missingMiB(board);
}
