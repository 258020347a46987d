/** What must be written down or told, in spite of a disk that takes nothing for a while: a guest may hang until it is. */
import { messageOf } from '../model/failure.ts';
import type { AgentContext } from './context.ts';

const againMs = 250;

/** Tries until it succeeds. @param isOver looked at after a failure: nobody needs it any more. @throws the last error then */
export async function insist(
  { clock, log }: Pick<AgentContext, 'clock' | 'log'>,
  what: string,
  run: () => void | Promise<void>,
  isOver: () => boolean = () => false,
): Promise<void> {
  for (let known = ''; ;) {
    try {
      return await run();
    } catch (error) {
      if (isOver()) throw error;
      // Once: the log may be on the same disk.
      if (messageOf(error) !== known) log.error({ error: messageOf(error) }, `${what} (tried again until it is)`);
      known = messageOf(error);
    }
    await clock.sleep(againMs);
  }
}
