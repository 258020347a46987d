/**
 * Showing a migration while it runs: in place on a terminal (canvas.ts), as plain lines elsewhere, as JSON lines for programs.
 * Not here: what the lines say (live.ts).
 */
import type { EventView, MigrationView } from '../wire/endpoints.ts';
import type { Context } from './context.ts';
import { isLive, openCanvas } from './canvas.ts';
import { liveState, plainLines, render, updated, type LiveState } from './live.ts';
import type { Surroundings } from './surroundings.ts';

const plainProgressMs = 1_000;

export interface Screen {
  /** Whether it tells by itself how the migration ended. */
  readonly tellsEnd: boolean;
  show(event: EventView): void;
  /** Leaves the terminal as it was found. */
  close(): void;
}

export function openScreen(context: Context, migration: MigrationView): Screen {
  const { surroundings } = context;
  if (context.json) return { tellsEnd: true, show: (event) => context.printLine(event), close: () => {} };
  return isLive(surroundings) ? terminalScreen(surroundings, migration) : plainScreen(context, migration);
}

function terminalScreen(surroundings: Surroundings, migration: MigrationView): Screen {
  const { clock } = surroundings;
  let state = liveState(migration, clock.now());
  const canvas = openCanvas(surroundings, (columns, style) => {
    // Between events the time goes on: the elapsed times are shown as of now.
    state = { ...state, now: Math.max(state.now, clock.now()) };
    return render(state, columns, style);
  });
  return {
    tellsEnd: true,
    show(event) {
      state = updated(state, event);
      canvas.soon();
    },
    close: () => canvas.close(),
  };
}

function plainScreen(context: Context, migration: MigrationView): Screen {
  const { stdout, clock } = context.surroundings;
  let shown: LiveState | null = null;
  let progressAt = -Infinity;
  const write = (next: LiveState): void => {
    const due = clock.monotonic() - progressAt >= plainProgressMs;
    // Without its sample the state gives no progress line; what has changed otherwise is said at once.
    const lines = plainLines(shown, due ? next : { ...next, sample: shown?.sample ?? null });
    if (due && next.sample && next.sample !== shown?.sample) progressAt = clock.monotonic();
    for (const line of lines) stdout.write(`${line}\n`);
    shown = due ? next : { ...next, sample: shown?.sample ?? null, work: next.work };
  };
  write(liveState(migration, clock.now()));
  return {
    tellsEnd: false,
    show(event) {
      const base: LiveState = shown ?? liveState(migration, clock.now());
      write(updated(base, event));
    },
    close: () => {},
  };
}
