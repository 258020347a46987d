/** What a handler is: one function per row of the endpoint table. They know nothing of HTTP. */
import type { Actor } from '../model/access.ts';
import type { EndpointName, HandledOf, ReplyOf, endpoints } from '../wire/endpoints.ts';
import type { EventHub } from './event-hub.ts';
import type { ControlPlane } from './plane.ts';
import type { RequestKey } from './requests.ts';

export interface Call {
  readonly plane: ControlPlane;
  /** From the Idempotency-Key header, on the rows that make something. */
  readonly request: RequestKey | null;
  /** Who asks; `nobody` where everybody may. */
  readonly actor: Actor;
  /** Where the request came from. */
  readonly address: string;
  /** Versions of which one must be the present one, or `*`; null: whatever it is. */
  readonly ifMatch: readonly string[] | null;
  readonly answer: Answer;
  /** Where events are read from. */
  readonly hub: EventHub;
}

/** What is told beside the reply itself. */
export interface Answer {
  /** There is more, after this one. */
  more(after: string): void;
  version(version: string): void;
  /** The browser is known by this from now on; null: no more. */
  session(secret: string | null, forMs: number): void;
}

/** Where events go. */
export interface EventStream {
  readonly lastEventId: string | null;
  /** Aborted when the reader is gone or the server stops. */
  readonly signal: AbortSignal;
  /** Whole messages of an event stream. The first begins the answer. */
  write(bytes: string | Uint8Array): void;
  /** What the reader has not taken yet. */
  unreadBytes(): number;
  /** Ends the connection, whatever is unread. */
  cut(): void;
}

/** A connection of raw bytes. */
export interface Tunnel {
  write(bytes: Uint8Array): void;
  end(reason: string): void;
  onData(handler: (bytes: Uint8Array) => void): void;
  readonly closed: Promise<void>;
}

type StreamOf<N extends EndpointName> = (typeof endpoints)[N] extends { readonly stream: infer S } ? S : 'none';

export type Handler<N extends EndpointName> =
  StreamOf<N> extends 'events'
    ? (input: HandledOf<N>, call: Call, stream: EventStream) => Promise<void>
    : StreamOf<N> extends 'tunnel'
      ? /** Refuses by throwing before `accept` is called. */
        (input: HandledOf<N>, call: Call, accept: () => Tunnel) => Promise<void>
      : StreamOf<N> extends 'lines'
        ? (input: HandledOf<N>, call: Call) => AsyncIterable<string>
        : (input: HandledOf<N>, call: Call) => ReplyOf<N> | Promise<ReplyOf<N>>;
