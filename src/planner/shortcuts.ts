/**
 * Where a budget of moves is used up, none may be wasted. A host that sends a VM away and receives another has cost two moves where
 * one would do: the second VM goes straight to where the first went, which stays at home. What is saved is spent where it brings
 * most. Annealing seldom finds this: the way there leads through placements that are no better.
 */
import type { Board } from './board.ts';
import type { Chance } from './chance.ts';
import { bestMove, noGain } from './search.ts';

/** Pairs that are tried, at most. */
const mostPairs = 400;

/** @returns how many moves were saved and spent again */
export function takeShortcuts(board: Board, chance: Chance): number {
  if (board.movedCount < board.problem.maxMoves) return 0;
  let taken = 0;
  let tried = 0;
  for (const [vm, other] of pairs(board)) {
    if (tried >= mostPairs) break;
    // An earlier shortcut may have changed what this one is about.
    if (!board.isMoved(vm) || !board.isMoved(other) || board.problem.home[other] !== board.at[vm]) continue;
    tried++;
    if (takes(board, vm, other, chance)) taken++;
  }
  return taken;
}

/** One VM that came to a host, one that left it. */
function pairs(board: Board): [came: number, left: number][] {
  const { home, hosts, vms } = board.problem;
  const left: number[][] = Array.from({ length: hosts }, () => []);
  for (let vm = 0; vm < vms; vm++) if (board.isMoved(vm) && home[vm]! >= 0) left[home[vm]!]!.push(vm);
  return board.on.flatMap((here, host) =>
    here.filter((vm) => board.isMoved(vm)).flatMap((vm) => left[host]!.map((other): [number, number] => [vm, other])),
  );
}

function takes(board: Board, vm: number, other: number, chance: Chance): boolean {
  const before = board.energy();
  const here = board.at[vm]!;
  const there = board.at[other]!;
  if (here === there || !board.fitsExchange(vm, other)) return false;
  board.move(vm, there);
  board.move(other, here);
  const spent = bestMove(board, chance);
  const from = spent === null ? -1 : board.at[spent.vm]!;
  if (spent !== null) board.move(spent.vm, spent.to);
  if (board.energy() < before - noGain) return true;
  if (spent !== null) board.move(spent.vm, from);
  board.move(other, there);
  board.move(vm, here);
  return false;
}
