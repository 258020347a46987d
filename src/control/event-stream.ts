/** One reader of events over HTTP. Not here: which events, and how far it may fall behind (event-hub.ts). */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { EventStream } from './handler.ts';

/** @param begin called before the first byte: from there on no other answer can be given */
export async function streamEvents(
  request: IncomingMessage,
  raw: ServerResponse,
  closing: AbortSignal,
  begin: () => void,
  run: (stream: EventStream) => unknown,
): Promise<void> {
  const gone = new AbortController();
  raw.once('close', () => gone.abort());
  const signal = AbortSignal.any([gone.signal, closing]);
  const header = request.headers['last-event-id'];
  try {
    await run({
      lastEventId: typeof header === 'string' ? header : null,
      signal,
      write: (bytes) => {
        if (signal.aborted) return;
        if (!raw.headersSent) {
          begin();
          raw.writeHead(200, {
            'content-type': 'text/event-stream',
            'cache-control': 'no-store',
            'x-accel-buffering': 'no',
          });
        }
        raw.write(bytes);
      },
      unreadBytes: () => raw.writableLength,
      cut: () => raw.destroy(),
    });
  } catch (error) {
    if (!raw.headersSent) throw error; // refused before anything was streamed
    if (!signal.aborted) throw error;
  } finally {
    gone.abort();
    if (raw.headersSent) raw.end();
  }
}
