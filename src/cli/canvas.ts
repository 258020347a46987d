/** Lines that are drawn over in place on a terminal. Not here: what they say. */
import type { Style } from './live.ts';
import type { Surroundings } from './surroundings.ts';

const redrawMs = 100;

export interface Canvas {
  /** Something has changed: drawn at once, or as soon as it may be. */
  soon(): void;
  /** Draws once more and leaves the terminal as it was found. */
  close(): void;
}

/** Can lines be drawn over here? */
export function isLive({ env, stdout }: Surroundings): boolean {
  return stdout.isTTY && env['TERM'] !== 'dumb';
}

/** What the terminal shows, if it is one: colours only there, and where NO_COLOR does not forbid them. */
export function styleOf({ env, stdout }: Surroundings): Style {
  const locale = env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '';
  return { colour: stdout.isTTY && !env['NO_COLOR'], unicode: /utf-?8/i.test(locale) };
}

/** @param lines asked at each drawing, at least once a second */
export function openCanvas(
  surroundings: Surroundings,
  lines: (columns: number, style: Style) => readonly string[],
): Canvas {
  const { stdout, clock } = surroundings;
  const style = styleOf(surroundings);
  let drawn: readonly string[] = [];
  let drawnAt = -Infinity;
  let pending: { cancel(): void } | undefined;
  let closed = false;

  const draw = (): void => {
    pending?.cancel();
    drawnAt = clock.monotonic();
    // What is drawn must fit: lines that have scrolled away cannot be drawn over.
    const next = lines(stdout.columns - 1, style).slice(0, Math.max(1, stdout.rows - 1));
    const up = heightOf(drawn, stdout.columns);
    const back = up > 0 ? `\u001B[${up}A\r` : '\r';
    stdout.write(`${back}${next.map((line) => `${line}\u001B[K\n`).join('')}\u001B[J`);
    drawn = next;
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
    soon,
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
