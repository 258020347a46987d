/**
 * Waiting for a drain: its record, read once a second, until nothing more is to be waited for; a server that is away for a
 * moment is waited for too. Shown in place on a terminal, as plain lines elsewhere, as JSON lines for programs.
 *
 * Not here: the words (drain-words.ts).
 */
import { formatMs } from '../model/units.ts';
import type { DrainView } from '../wire/drains.ts';
import { isLive, openCanvas } from './canvas.ts';
import { Interrupted, interruptible, type Context } from './context.ts';
import { drainChanges, drainLines } from './drain-words.ts';
import { Patience } from './patience.ts';

const pollMs = 1_000;
const sayAgainMs = 30_000;

/** Is nothing more to be expected by itself? */
function isOver({ state, blocked }: DrainView): boolean {
  switch (state) {
    case 'draining':
      return blocked !== null;
    case 'returning':
      return false;
    case 'drained':
    case 'undrained':
    case 'cancelled':
      return true;
  }
}

interface Shown {
  show(view: DrainView): void;
  close(): void;
}

/**
 * @param show `live`: in place where that can be; `lines`: what changes; `json`: each change as a line
 * @returns how it stands at the end
 * @throws Interrupted after Ctrl-C, having said that it goes on
 */
export async function followDrain(
  context: Context,
  first: DrainView,
  show: 'live' | 'lines' | 'json' | 'nothing',
): Promise<DrainView> {
  const { clock } = context.surroundings;
  const interruption = interruptible(context);
  const shown = openShown(context, first, show);
  let view = first;
  const inPlace = show === 'live' && isLive(context.surroundings);
  const patience = new Patience(clock, interruption.signal, inPlace ? null : context.say);
  try {
    while (!isOver(view)) {
      await clock.sleep(pollMs, interruption.signal);
      const params = { drain: first.id };
      const now = await patience.ask((signal) => context.client().getDrain({ params }, { signal }));
      if (now === undefined) continue;
      view = now;
      shown.show(view);
    }
    shown.close();
    return view;
  } catch (error) {
    shown.close();
    if (interruption.signal.aborted) {
      const { host } = first;
      context.say(
        `It goes on without this command. Follow it: drover drain watch ${host}\n` +
          `To stop it: drover host drain ${host} --cancel`,
      );
      throw new Interrupted('interrupted', { cause: error });
    }
    throw error;
  } finally {
    interruption.stop();
  }
}

function openShown(context: Context, first: DrainView, show: 'live' | 'lines' | 'json' | 'nothing'): Shown {
  const { surroundings } = context;
  const { clock } = surroundings;
  let view = first;
  switch (show) {
    case 'nothing':
      return { show: () => {}, close: () => {} };
    case 'json': {
      let said = '';
      const say = (next: DrainView): void => {
        const text = JSON.stringify(next.vms.map(({ state, migration }) => [state, migration]));
        if (text !== said) context.printLine(next);
        said = text;
      };
      say(first);
      return { show: say, close: () => {} };
    }
    case 'live':
      if (isLive(surroundings)) {
        const canvas = openCanvas(surroundings, (columns, style) => drainLines(view, clock.now(), columns, style));
        return {
          show(next) {
            view = next;
            canvas.soon();
          },
          close: () => canvas.close(),
        };
      }
      return openShown(context, first, 'lines');
    case 'lines': {
      const startedAt = clock.monotonic();
      let saidAt = startedAt;
      const say = (lines: readonly string[]): void => {
        for (const line of lines) context.say(`${formatMs(clock.monotonic() - startedAt).padStart(8)}  ${line}`);
        if (lines.length > 0) saidAt = clock.monotonic();
      };
      say([first.says]);
      return {
        show(next) {
          const changes = drainChanges(view, next);
          const quiet = changes.length === 0 && clock.monotonic() - saidAt > sayAgainMs;
          say(quiet ? [next.says] : changes);
          view = next;
        },
        close: () => {},
      };
    }
  }
}
