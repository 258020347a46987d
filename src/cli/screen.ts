/**
 * Drawing the live view: in place on a terminal, as plain lines elsewhere, as JSON lines for programs. Not here: what the
 * lines say (live.ts).
 */
import type { EventView, MigrationView } from '../wire/endpoints.ts';
import type { Context } from './context.ts';
import { liveState, plainLines, render, updated, type LiveState, type Style } from './live.ts';
import type { Surroundings } from './surroundings.ts';

const redrawMs = 100;
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
  const dumb = surroundings.env['TERM'] === 'dumb';
  return surroundings.stdout.isTTY && !dumb ? terminalScreen(surroundings, migration) : plainScreen(context, migration);
}

function styleOf({ env, stdout }: Surroundings): Style {
  const locale = env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '';
  return { colour: stdout.isTTY && !env['NO_COLOR'], unicode: /utf-?8/i.test(locale) };
}

function terminalScreen(surroundings: Surroundings, migration: MigrationView): Screen {
  const { stdout, clock } = surroundings;
  const style = styleOf(surroundings);
  let state = liveState(migration, clock.now());
  let drawn: readonly string[] = [];
  let drawnAt = -Infinity;
  let pending: { cancel(): void } | undefined;
  let closed = false;

  const draw = (): void => {
    pending?.cancel();
    drawnAt = clock.monotonic();
    // Between events the time goes on: the elapsed times are shown as of now.
    state = { ...state, now: Math.max(state.now, clock.now()) };
    // What is drawn must fit: lines that have scrolled away cannot be drawn over.
    const lines = render(state, stdout.columns - 1, style).slice(0, Math.max(1, stdout.rows - 1));
    const up = heightOf(drawn, stdout.columns);
    const back = up > 0 ? `\u001B[${up}A\r` : '\r';
    stdout.write(`${back}${lines.map((line) => `${line}\u001B[K\n`).join('')}\u001B[J`);
    drawn = lines;
    if (!closed) pending = clock.setTimeout(draw, 1_000);
  };
  const soon = (): void => {
    const waitMs = drawnAt + redrawMs - clock.monotonic();
    pending?.cancel();
    if (waitMs <= 0) draw();
    else pending = clock.setTimeout(draw, waitMs);
  };
  const stopResize = stdout.onResize(soon);
  stdout.write('\u001B[?25l');
  draw();
  return {
    tellsEnd: true,
    show(event) {
      state = updated(state, event);
      soon();
    },
    close() {
      closed = true;
      draw();
      stopResize();
      stdout.write('\u001B[?25h');
    },
  };
}

/** Rows that lines take which a narrower terminal has wrapped since. */
function heightOf(lines: readonly string[], columns: number): number {
  // oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
  const visible = (line: string): number => line.replace(/\u001B\[[\d;]*m/g, '').length;
  return lines.reduce((rows, line) => rows + Math.max(1, Math.ceil(visible(line) / columns)), 0);
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
