/** Consoles: connections that are upgraded to raw bytes. Not here: what goes through them (handlers/vms.ts). */
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { UserError } from '../model/failure.ts';
import { apiPrefix } from '../wire/client.ts';
import { endpoints } from '../wire/endpoints.ts';
import { problemOf } from '../wire/errors.ts';
import { unknownPath } from './answers.ts';
import type { Tunnel } from './handler.ts';

const tunnelsLimit = 256;
/** A console that does not read is cut off: a guest must not fill our memory. */
const unreadConsoleBytes = 4 * 1024 * 1024;
const tunnelPath = new RegExp(`^${apiPrefix}${endpoints.consoleVm.path.replace(':vm', '([^/]+)')}$`);

/** @throws UserError not-found, invalid-input: it is no such tunnel */
export function vmOfTunnel(request: IncomingMessage): string {
  const path = (request.url ?? '').split('?')[0] ?? '';
  const vm = tunnelPath.exec(path)?.[1];
  if (vm === undefined) throw unknownPath(request.method ?? 'GET', path);
  if (request.headers.upgrade?.toLowerCase() !== 'drover-console') {
    throw new UserError('invalid-input', 'This upgrade is not offered.', 'Send `Upgrade: drover-console`.');
  }
  try {
    return decodeURIComponent(vm);
  } catch (error) {
    throw new UserError('invalid-input', 'The path is not properly encoded.', 'Encode it as a URL.', { cause: error });
  }
}

export function mountTunnels(
  server: Server,
  closing: AbortSignal,
  run: (request: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>,
): void {
  const open = new Set<Duplex>();
  closing.addEventListener('abort', () => open.forEach((socket) => socket.destroy()), { once: true });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy()); // the other side went away; `close` follows
    if (open.size >= tunnelsLimit) return socket.destroy();
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    run(request, socket, head).catch((error: unknown) => {
      const user =
        error instanceof UserError
          ? error
          : new UserError('unavailable', 'The console failed.', "The reason is in the server's log.", { cause: error });
      const problem = problemOf(user);
      const body = JSON.stringify(problem);
      const head = [
        `HTTP/1.1 ${problem.status} ${problem.title}`,
        'content-type: application/problem+json',
        `content-length: ${Buffer.byteLength(body)}`,
        'connection: close',
      ];
      socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
    });
  });
}

export function openTunnel(socket: Duplex, head: Buffer, signal: AbortSignal): Tunnel {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: drover-console\r\n\r\n');
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  if (head.length > 0) socket.unshift(head);
  return {
    write: (bytes) => {
      if (socket.writableLength > unreadConsoleBytes) socket.destroy();
      else if (!socket.destroyed && !signal.aborted) socket.write(bytes);
    },
    end: (reason) => socket.end(`\r\n[drover: ${reason}]\r\n`),
    onData: (handler) => {
      socket.on('data', handler);
      socket.on('end', () => socket.end());
    },
    closed,
  };
}
