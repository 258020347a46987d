/**
 * A duplex channel of JSON lines between programs that share a key: TLS 1.2 with a pre-shared key (RFC 4279), so both
 * ends prove that they hold it and nothing travels in clear. Certificates take its place when hosts get identities.
 *
 * Here: connecting, listening, framing, a limit on line length, keep-alive. Not here: what the lines mean.
 */
import { readFileSync, statSync } from 'node:fs';
import { connect as tlsConnect, createServer, type Server, type TLSSocket } from 'node:tls';

const maxLineBytes = 16 * 1024 * 1024;
/** How long a closed channel may take to send what it still holds. */
const closingMs = 1000;
const maxUnsentBytes = 64 * 1024 * 1024;
const ciphers = 'ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:PSK-AES256-GCM-SHA384';
const identity = 'drover-fleet';

export type FleetKey = Uint8Array & { readonly fleetKey: true };

/** Reads a fleet key: at least 32 hexadecimal digits in a file that is not open to everybody. @throws Error that says which file and why */
export function readFleetKey(path: string): FleetKey {
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new Error(`The fleet key ${path} cannot be read.`, { cause: error });
  }
  if ((statSync(path).mode & 0o007) !== 0) {
    throw new Error(`The fleet key ${path} can be read or written by everybody on this machine: chmod 600 it.`);
  }
  if (!/^[0-9a-f]{32,}$/i.test(text)) throw new Error(`The fleet key ${path} is not at least 32 hexadecimal digits.`);
  return Object.assign(new Uint8Array(Buffer.from(text, 'hex')), { fleetKey: true as const });
}

export interface Channel {
  /** Queues one message. @returns false when the channel is closed or its peer does not read */
  send(message: unknown): boolean;
  /** Called for each message in order; to be set right after the channel was handed over. A later one takes its place. */
  onMessage(handler: (message: unknown) => void): void;
  readonly closed: Promise<string>;
  readonly isOpen: boolean;
  readonly remote: string;
  close(reason?: string): void;
}

export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

/** Opens a channel. @throws Error with the reason: refused, wrong key, no answer within `timeoutMs` */
export function openChannel(options: {
  address: string;
  port: number;
  key: FleetKey;
  timeoutMs: number;
  signal?: AbortSignal;
}): Promise<Channel> {
  const { address, port, key, timeoutMs, signal } = options;
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({
      host: address,
      port,
      ciphers,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.2',
      pskCallback: () => ({ psk: key, identity }),
      checkServerIdentity: () => undefined, // the key is the identity; there is no certificate to check
    });
    const fail = (reason: string, cause?: unknown) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      socket.destroy();
      reject(new Error(`No channel to ${address}:${port}: ${reason}`, { cause }));
    };
    const aborted = () => fail('given up');
    const onError = (error: Error) =>
      fail(
        /bad record mac|decrypt/i.test(error.message)
          ? 'the other side has another fleet key'
          : error.message || 'connection failed',
        error,
      );
    const timer = setTimeout(() => fail(`no answer within ${timeoutMs} ms`), timeoutMs);
    signal?.addEventListener('abort', aborted, { once: true });
    if (signal?.aborted) return aborted();
    socket.once('error', onError);
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      socket.off('error', onError);
      resolve(channelOf(socket));
    });
  });
}

/** Listens for holders of the key. Others are turned away in the TLS handshake. */
export function listenChannels(options: {
  address: string;
  port: number;
  key: FleetKey;
  onChannel: (channel: Channel) => void;
}): Promise<Listener> {
  const server: Server = createServer({
    ciphers,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.2',
    handshakeTimeout: 5000,
    pskCallback: (_socket, name) => (name === identity ? options.key : null),
  });
  const open = new Set<Channel>();
  server.on('secureConnection', (socket) => {
    const channel = channelOf(socket);
    open.add(channel);
    void channel.closed.then(() => open.delete(channel));
    options.onChannel(channel);
  });
  server.on('tlsClientError', () => {}); // a stranger, or a wrong key: turned away, nothing to do
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Error(`Cannot listen on ${options.address}:${options.port}: ${error.message}`, { cause: error })),
    );
    server.listen(options.port, options.address, () => {
      const bound = server.address();
      resolve({
        port: typeof bound === 'object' && bound ? bound.port : options.port,
        close: () =>
          new Promise((done) => {
            for (const channel of open) channel.close('listener closed');
            server.close(() => done());
          }),
      });
    });
  });
}

function channelOf(socket: TLSSocket): Channel {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 1000);
  let handler: ((message: unknown) => void) | undefined;
  const waiting: unknown[] = [];
  let partial: Buffer[] = [];
  let partialBytes = 0;
  let reason = 'connection closed';
  let isOpen = true;

  const close = (why?: string) => {
    if (why !== undefined && isOpen) reason = why;
    isOpen = false;
    socket.destroySoon();
    // A peer that is gone without a word never takes what is left to say.
    setTimeout(() => socket.destroy(), closingMs).unref();
  };
  const closed = new Promise<string>((resolve) => {
    socket.once('close', () => {
      isOpen = false;
      resolve(reason);
    });
  });
  socket.on('error', (error) => {
    reason = error.message;
  });
  socket.on('end', () => close());
  const deliver = (line: Buffer) => {
    let message: unknown;
    try {
      message = JSON.parse(line.toString('utf8'));
    } catch {
      return close('a line that is not JSON');
    }
    if (!handler) {
      waiting.push(message);
      return;
    }
    try {
      handler(message);
    } catch (error) {
      // One message costs one connection, not the program.
      close(`a message could not be handled: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  socket.on('data', (chunk: Buffer) => {
    let from = 0;
    for (let at = chunk.indexOf(10, from); at !== -1; at = chunk.indexOf(10, from)) {
      const line = Buffer.concat([...partial, chunk.subarray(from, at)]);
      partial = [];
      partialBytes = 0;
      from = at + 1;
      if (line.length > 0) deliver(line);
      if (!isOpen) return;
    }
    if (from < chunk.length) {
      partial.push(chunk.subarray(from));
      partialBytes += chunk.length - from;
      if (partialBytes > maxLineBytes) close('a line that is too long');
    }
  });

  return {
    send(message) {
      if (!isOpen || socket.destroyed || socket.writableLength > maxUnsentBytes) return false;
      socket.write(`${JSON.stringify(message)}\n`);
      return true;
    },
    onMessage(next) {
      handler = next;
      for (const message of waiting.splice(0)) next(message);
    },
    closed,
    get isOpen() {
      return isOpen;
    },
    remote: `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`,
    close,
  };
}
