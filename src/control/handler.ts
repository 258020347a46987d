/** What a handler is: one function per row of the endpoint table. They know nothing of HTTP. */
import type { EndpointName, EventView, HandledOf, ReplyOf, endpoints } from '../wire/endpoints.ts';
import type { ControlPlane } from './plane.ts';
import type { RequestKey } from './requests.ts';

export interface Call {
  readonly plane: ControlPlane;
  /** From the Idempotency-Key header, on the rows that make something. */
  readonly request: RequestKey | null;
}

/** Where events go; `write` resolves when there is room for more. */
export interface EventStream {
  readonly lastEventId: string | null;
  /** Aborted when the reader is gone or the server stops. */
  readonly signal: AbortSignal;
  /** @param id the store's revision; null for what cannot be asked for again */
  write(event: EventView, id: number | null): Promise<void>;
  heartbeat(): Promise<void>;
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
      : (input: HandledOf<N>, call: Call) => ReplyOf<N> | Promise<ReplyOf<N>>;
