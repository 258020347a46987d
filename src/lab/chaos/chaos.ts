/**
 * `drover lab chaos`: the kill matrix on a lab of its own, cell after cell, and the table. A cell that fails makes the command
 * fail; its logs are kept, and the next one gets a fresh lab. Not here: what a cell is (cells.ts) and does (cell.ts).
 */
import { UserError, messageOf } from '../../model/failure.ts';
import { formatMs } from '../../model/units.ts';
import { down, keepLogs } from '../down.ts';
import { readState } from '../state.ts';
import { statusOf } from '../status.ts';
import { up, type Lab } from '../up.ts';
import { runCell, type CellResult } from './cell.ts';
import { chosenCells, strikes, type Cell } from './cells.ts';

/** Of its own, so that nobody's lab is broken. */
export const chaosLabName = 'chaos';
const hosts = 3;

export interface ChaosOptions {
  readonly name: string;
  readonly output: 'table' | 'json';
  /** Regular expression on the names of cells. */
  readonly only?: string | undefined;
  readonly short: boolean;
  /** Print the names of the cells, and do nothing. */
  readonly list: boolean;
  /** Words for people. */
  readonly say: (line: string) => void;
  /** Data. */
  readonly print: (text: string) => void;
  readonly signal: AbortSignal;
}

/** @returns exit code: 0 every cell held, 1 not, 130 interrupted */
export async function runChaos(options: ChaosOptions): Promise<number> {
  const { say, print, signal } = options;
  const cells = cellsOf(options);
  if (options.list) {
    print(options.output === 'json' ? JSON.stringify(cells, null, 2) : cells.map(({ name }) => name).join('\n'));
    return 0;
  }
  await refuseLabInUse(options.name);
  const results: CellResult[] = [];
  const startedAt = performance.now();
  try {
    await runAll(cells, options, results);
  } catch (error) {
    if (!signal.aborted) throw error;
    say('interrupted');
  } finally {
    await down(options.name, say).catch((error: unknown) =>
      say(`the lab could not be taken down: ${messageOf(error)}`),
    );
  }
  print(options.output === 'json' ? JSON.stringify(results.map(rowData), null, 2) : chaosTable(results));
  const failed = results.filter(({ ok }) => !ok).length;
  const missed = results.filter(({ ok, hit }) => ok && hit.length === 0).length;
  const counts = `${results.length - failed - missed} cells held, ${missed} were never struck, ${failed} failed`;
  say(`${counts}, in ${formatMs(performance.now() - startedAt)}`);
  if (signal.aborted) return 130;
  return failed === 0 ? 0 : 1;
}

async function runAll(
  cells: readonly Cell[],
  { name, say, signal }: ChaosOptions,
  results: CellResult[],
): Promise<void> {
  let lab: Lab | undefined;
  for (const [i, cell] of cells.entries()) {
    lab ??= await up({ name, hosts, say, signal });
    const result = await runCell(lab, cell, signal);
    results.push(result);
    const { hit, ended, verified, wrong } = result;
    const head = `${String(i + 1).padStart(3)} of ${cells.length}  ${result.ok ? 'ok    ' : 'FAILED'}`;
    const seconds = `${(result.tookMs / 1000).toFixed(1)} s`.padStart(7);
    const where = hit[0] === cell.phase ? '' : ` (hit: ${hit.join(', ') || 'nothing'})`;
    say(`${head} ${seconds}  ${cell.name}${where}: ${ended}, ${verified}`);
    if (result.ok) continue;
    say(`       ${wrong ?? ''}`);
    say(`       logs are kept in ${keepLogs(name)}`);
    // What the next cell finds must not depend on what this one broke.
    await down(name, () => {});
    lab = undefined;
  }
}

/** @throws UserError when there are none */
function cellsOf(options: ChaosOptions): Cell[] {
  const cells = chosen(options);
  if (cells.length > 0) return cells;
  throw new UserError(
    'invalid-input',
    `No cell of the kill matrix is called anything like '${options.only ?? ''}'.`,
    'See what they are called: drover lab chaos --list',
  );
}

function chosen(options: ChaosOptions): Cell[] {
  try {
    return chosenCells(options);
  } catch (cause) {
    const says = `'${options.only ?? ''}' is not a regular expression: ${messageOf(cause)}.`;
    throw new UserError('invalid-input', says, "Write one, for example 'server in .* of hybrid'.", { cause });
  }
}

/** A lab that works is somebody's; remains of one are not. */
async function refuseLabInUse(name: string): Promise<void> {
  const status = await statusOf(name);
  if (status.up) {
    throw new UserError(
      'already-exists',
      `A lab named '${name}' is up already, with ${status.vms.length} VMs.`,
      `Take it down with drover lab down --name ${name}, or give the matrix another: drover lab chaos --name chaos2`,
    );
  }
  if (readState(name) || status.trouble.length > 0) await down(name, () => {});
}

function rowData({ cell, ...rest }: CellResult) {
  return { ...cell, does: strikes[cell.strike], ...rest };
}

export function chaosTable(results: readonly CellResult[]): string {
  const head = ['disturbance', 'technique', 'wanted', 'hit', 'ended', 'guest', 'interruption', 'verified', 'took'];
  const rows = results.map(({ cell, hit, ended, guest, interruptionMs, verified, wrong, tookMs }) => [
    cell.strike,
    cell.technique,
    cell.phase,
    hit.join(' > ') || 'nothing',
    ended,
    guest,
    interruptionMs === null ? '-' : interruptionMs === 0 ? '< 10 ms' : formatMs(interruptionMs),
    wrong === null ? verified : `FAILED: ${wrong}`,
    formatMs(tookMs),
  ]);
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]) =>
    row
      .map((text, i) => text.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd();
  return [head, ...rows].map(line).join('\n');
}
