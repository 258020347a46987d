/**
 * Reading a text/event-stream body (WHATWG HTML, section 9.2) into messages: only what our server sends, which is `id`,
 * `data` and comments. Not here: connecting, resuming, and what the data means.
 */

export interface ServerSentMessage {
  /** Undefined where the message has none. */
  readonly id: string | undefined;
  readonly data: string;
}

/** One message is far smaller; more is no event stream. */
const longestMessage = 16 * 1024 * 1024;

/**
 * Messages as they become whole. One that the stream's end cuts off is dropped.
 * @param onBytes called for everything that arrives, comments too: the sign that the connection is alive
 */
export async function* readServerSentEvents(
  body: ReadableStream<Uint8Array>,
  onBytes: () => void = () => {},
): AsyncGenerator<ServerSentMessage, void, void> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let text = '';
  let id: string | undefined;
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      text += decoder.decode(value, { stream: true });
      if (text.length > longestMessage) throw new Error('an event is longer than 16 MiB');
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const raw of lines) {
        const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
        if (line === '') {
          // An id alone says how far its reader has come.
          if (data.length > 0 || id !== undefined) yield { id, data: data.join('\n') };
          id = undefined;
          data = [];
          continue;
        }
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'data') data.push(content);
        else if (field === 'id') id = content;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
