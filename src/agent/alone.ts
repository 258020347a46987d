/** One program for one state directory; where a host's things in /run are. */
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { UserError } from '../model/failure.ts';

/** Sockets need short paths: the state directory's own may be long. */
export function runDirectory(stateDir: string): string {
  return `/run/drover/${createHash('sha256').update(stateDir).digest('hex').slice(0, 12)}`;
}

/**
 * One agent for one state directory: two would both give numbers to facts and orders to guests. One guard: two would both
 * write one lease. The kernel knows whether the other one lives, so nothing stale is left to clean up.
 * @throws UserError busy
 */
export async function holdAlone(
  socketPath: string,
  stateDir: string,
  who: 'agent' | 'guard' = 'agent',
): Promise<Server> {
  const listen = () =>
    new Promise<Server>((resolve, reject) => {
      const server = createServer((socket) => socket.destroy()).once('error', reject);
      server.listen(socketPath, () => resolve(server.unref()));
    });
  const isHeld = () =>
    new Promise<boolean>((resolve) => {
      const socket = connect({ path: socketPath });
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
  try {
    return await listen();
  } catch {
    if (!(await isHeld())) {
      rmSync(socketPath, { force: true });
      return listen();
    }
    throw new UserError(
      'busy',
      `Another ${who} already uses ${stateDir}.`,
      'End that one first, or give this one a --state of its own.',
    );
  }
}
