/**
 * One look at the store for all readers of events: each commit is made into text once, kept in a ring, and given to every
 * reader in batches of 100 ms, as the same bytes.
 *
 *     store.watch -> frames (ring) -> every 100 ms: for each reader what it has not got yet -> its socket
 *     live events ->
 *
 * Nothing is lost: a frame's id says its commit and its place in it, and a reader that comes back with the id goes on after it,
 * from the ring, or from the store's history as far as that reaches, or else with the present state of everything. A reader
 * that is too slow is not waited for: nothing is written to it while much is unread, and when the ring has gone past it, it is
 * cut off and comes back the same way.
 *
 *     id: 1234        everything of commit 1234 was read          id: 1234-2      up to the change number 2 of commit 1234
 */
import { UserError } from '../model/failure.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import { HistoryGone } from '../store/store.ts';
import type { Revision } from '../store/store.ts';
import type { EventView } from '../wire/endpoints.ts';
import { eventsOf, liveEvent, presentState } from './events.ts';
import type { EventStream } from './handler.ts';
import type { ControlPlane } from './plane.ts';

/** Batches of so long are one write to each reader. */
const usualBatchMs = 100;
const heartbeatMs = 15_000;
/** Of the ring; beyond either the oldest go. */
const framesLimit = 16_384;
const ringBytesLimit = 32 * 1024 * 1024;
/** Unread by one reader: it is not written to for the time being. */
const unreadLimitBytes = 256 * 1024;

/** Where a reader is: all of the commits before `revision`, and of that one the changes up to `index`. */
interface Place {
  readonly revision: Revision;
  readonly index: number;
}

interface Frame {
  /** Null for what is told live only. */
  readonly place: Place | null;
  readonly text: string;
  readonly isSample: boolean;
  /** Which migration it is about. */
  readonly migration: string | null;
}

export interface Wish {
  /** Only what concerns this migration. */
  readonly migration: string | null;
  readonly samples: boolean;
}

interface Reader {
  readonly stream: EventStream;
  readonly wish: Wish;
  readonly wishKey: string;
  /** Number of the next frame it gets. */
  next: number;
  /** Frames up to here it has got by another way. */
  after: Place;
  wroteAt: number;
  readonly ended: () => void;
}

export class EventHub {
  readonly #plane: ControlPlane;
  readonly #clock: Clock;
  readonly #batchMs: number;
  readonly #readers = new Set<Reader>();
  /** The frame with number n stands at n - #first. */
  #ring: Frame[] = [];
  #first = 0;
  #ringBytes = 0;
  /** All commits after this one are in the ring, up to `#revision`. */
  #ringFrom: Revision = 0;
  #revision: Revision = 0;
  #running: AbortController | undefined;
  /** Readers, those that are still catching up included. */
  #serving = 0;
  #flushTimer: Timer | undefined;
  #heartbeat: Timer | undefined;

  /** @param clock of the batches: real where the connections are */
  constructor(plane: ControlPlane, clock: Clock, batchMs = usualBatchMs) {
    this.#batchMs = batchMs;
    this.#plane = plane;
    this.#clock = clock;
  }

  get readers(): number {
    return this.#serving;
  }

  /** Serves one reader until it is gone or was cut off. @throws UserError invalid-input for an id that is none */
  async serve(stream: EventStream, wish: Wish): Promise<void> {
    const since = stream.lastEventId === null ? null : placeOf(stream.lastEventId);
    this.#serving++;
    this.#start();
    try {
      await this.#serve(stream, wish, since);
    } finally {
      if (--this.#serving === 0) this.#stop();
    }
  }

  async #serve(stream: EventStream, wish: Wish, since: Place | null): Promise<void> {
    const wishKey = JSON.stringify(wish);
    const { promise, resolve } = Promise.withResolvers<void>();
    const reader: Reader = {
      stream,
      wish,
      wishKey,
      next: this.#end,
      after: noPlace,
      wroteAt: this.#clock.monotonic(),
      ended: resolve,
    };
    stream.write(': from here on nothing is missed\n\n');
    reader.after = since === null ? everythingOf(this.#plane.fleet.revision) : await this.#catchUp(reader, since);
    if (stream.signal.aborted) return;
    // No wait between here and the last look at the ring: what comes next is in it.
    reader.next = this.#numberAfter(reader.after);
    this.#readers.add(reader);
    stream.signal.addEventListener('abort', () => this.#forget(reader), { once: true });
    this.#flushSoon();
    await promise;
  }

  #forget(reader: Reader): void {
    this.#readers.delete(reader);
    reader.ended();
  }

  #stop(): void {
    this.#running?.abort();
    this.#running = undefined;
  }

  get #end(): number {
    return this.#first + this.#ring.length;
  }

  #start(): void {
    if (this.#running !== undefined) return;
    const running = new AbortController();
    this.#running = running;
    this.#clear(this.#plane.fleet.revision);
    const unsubscribe = this.#plane.live.subscribe((event) => {
      const view = liveEvent(this.#plane, event);
      if (view) this.#push(frameOf(view, null, null));
    });
    running.signal.addEventListener('abort', unsubscribe, { once: true });
    running.signal.addEventListener('abort', () => this.#heartbeat?.cancel(), { once: true });
    this.#beat();
    void this.#watch(running.signal).catch((error: unknown) => {
      // The store is gone, and with it this term: whoever reads comes back and asks the next one.
      this.#plane.log.info({ error }, 'events cannot be read any more');
      this.#cutAll();
    });
  }

  async #watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        for await (const commit of this.#plane.store.watch('', this.#revision, signal)) {
          await this.#plane.fleet.caughtUp();
          const { revision } = commit;
          const events = eventsOf(this.#plane, commit);
          events.forEach(({ index, event }, at) => {
            const last = at === events.length - 1;
            const id = last ? String(revision) : `${revision}-${index}`;
            this.#push(frameOf(event, last ? everythingOf(revision) : { revision, index }, id));
          });
          this.#revision = revision;
        }
      } catch (error) {
        if (!(error instanceof HistoryGone)) throw error;
        // This server itself was too slow: nobody can be told all that was in between.
        this.#clear(this.#plane.fleet.revision);
        this.#cutAll();
      }
    }
  }

  #clear(from: Revision): void {
    this.#first = this.#end;
    this.#ring = [];
    this.#ringBytes = 0;
    this.#ringFrom = from;
    this.#revision = from;
  }

  #cutAll(): void {
    for (const reader of this.#readers) reader.stream.cut();
  }

  #push(frame: Frame): void {
    this.#ring.push(frame);
    this.#ringBytes += frame.text.length;
    if (this.#ring.length > framesLimit || this.#ringBytes > ringBytesLimit) this.#dropOldest();
    this.#flushSoon();
  }

  /** An eighth at once, so that the array is not moved for each frame. */
  #dropOldest(): void {
    const gone = this.#ring.splice(0, Math.max(1, this.#ring.length >> 3));
    this.#first += gone.length;
    for (const { place, text } of gone) {
      this.#ringBytes -= text.length;
      if (place !== null) this.#ringFrom = place.revision;
    }
  }

  #flushSoon(): void {
    if (this.#flushTimer !== undefined) return;
    this.#flushTimer = this.#clock.setTimeout(() => {
      this.#flushTimer = undefined;
      this.#flushAll();
    }, this.#batchMs);
  }

  /** What many readers get is made once. */
  #flushAll(): void {
    const made = new Map<string, { readonly bytes: Buffer; readonly next: number }>();
    let again = false;
    for (const reader of this.#readers) {
      if (reader.next >= this.#end) continue;
      if (reader.next < this.#first) {
        reader.stream.cut();
        continue;
      }
      if (reader.stream.unreadBytes() > unreadLimitBytes) {
        again = true;
        continue;
      }
      // What it got by another way is behind it by now.
      const first = this.#ring[reader.next - this.#first]?.place?.revision ?? 0;
      if (first > reader.after.revision) reader.after = noPlace;
      const { after } = reader;
      const key = `${reader.next} ${after.revision}-${after.index} ${reader.wishKey}`;
      const batch = made.get(key) ?? this.#batch(reader);
      made.set(key, batch);
      if (batch.bytes.length > 0) this.#write(reader, batch.bytes);
      reader.next = batch.next;
      if (batch.next < this.#end) again = true;
    }
    if (again) this.#flushSoon();
  }

  #batch({ next, after, wish }: Reader): { bytes: Buffer; next: number } {
    const texts: string[] = [];
    let length = 0;
    let at = next;
    for (; at < this.#end && length < unreadLimitBytes; at++) {
      const frame = this.#ring[at - this.#first];
      if (frame === undefined) break;
      if (!isWanted(frame, wish) || (frame.place !== null && compare(frame.place, after) <= 0)) continue;
      texts.push(frame.text);
      length += frame.text.length;
    }
    return { bytes: Buffer.from(texts.join('')), next: at };
  }

  #write(reader: Reader, bytes: string | Buffer): void {
    reader.wroteAt = this.#clock.monotonic();
    reader.stream.write(bytes);
  }

  /** Shows that the connection lives, and how far its reader has come also where nothing of it was to be told. */
  #beat(): void {
    this.#heartbeat = this.#clock.setTimeout(() => {
      const now = this.#clock.monotonic();
      for (const reader of this.#readers) {
        if (now - reader.wroteAt < heartbeatMs || reader.stream.unreadBytes() > unreadLimitBytes) continue;
        const all = reader.next >= this.#end && reader.after.revision <= this.#revision;
        this.#write(reader, all ? `: heartbeat\nid: ${this.#revision}\n\n` : ': heartbeat\n\n');
      }
      if (this.#running !== undefined) this.#beat();
    }, heartbeatMs / 3);
  }

  /** The number of the first frame behind a place that the ring reaches back to. */
  #numberAfter(place: Place): number {
    const at = this.#ring.findIndex((frame) => frame.place !== null && compare(frame.place, place) > 0);
    return at < 0 ? this.#end : this.#first + at;
  }

  /** Tells what happened since, until the ring has the rest. @returns up to where it was told */
  async #catchUp({ stream, wish }: Reader, since: Place): Promise<Place> {
    let place = since;
    // An index in the middle of a commit: that commit is looked at once more.
    const isReached = (): boolean => (place.index === all ? place.revision : place.revision - 1) >= this.#ringFrom;
    const tell = async (event: EventView, at: Place | null, id: string | null): Promise<void> => {
      const frame = frameOf(event, at, id);
      if (!isWanted(frame, wish)) return;
      stream.write(frame.text);
      while (stream.unreadBytes() > unreadLimitBytes && !stream.signal.aborted) {
        await this.#clock.sleep(usualBatchMs, stream.signal).catch(() => {});
      }
    };
    while (!isReached() && !stream.signal.aborted) {
      try {
        const from = place.index === all ? place.revision : place.revision - 1;
        for await (const commit of this.#plane.store.watch('', from, stream.signal)) {
          const { revision } = commit;
          const events = eventsOf(this.#plane, commit);
          for (const [at, { index, event }] of events.entries()) {
            const last = at === events.length - 1;
            const here = last ? everythingOf(revision) : { revision, index };
            if (compare(here, since) > 0) await tell(event, here, last ? String(revision) : `${revision}-${index}`);
          }
          place = everythingOf(revision);
          if (isReached()) break;
        }
      } catch (error) {
        if (!(error instanceof HistoryGone)) throw error;
        await this.#plane.fleet.caughtUp();
        const { revision } = this.#plane.fleet;
        const state = presentState(this.#plane);
        // Only the last one has an id: a reader that breaks off in the middle begins this anew.
        for (const event of state) await tell(event, null, null);
        stream.write(`id: ${revision}\n\n`);
        place = everythingOf(revision);
      }
    }
    return place;
  }
}

/** As an index: everything of the commit. */
const all = Number.MAX_SAFE_INTEGER;
const noPlace: Place = { revision: 0, index: 0 };
const everythingOf = (revision: Revision): Place => ({ revision, index: all });

function compare(a: Place, b: Place): number {
  return a.revision - b.revision || a.index - b.index;
}

function isWanted({ isSample, migration }: Frame, wish: Wish): boolean {
  if (isSample && !wish.samples) return false;
  return wish.migration === null || wish.migration === migration;
}

function frameOf(event: EventView, place: Place | null, id: string | null): Frame {
  const migration =
    event.type === 'migration' ? event.migration.id : event.type === 'sample' ? event.sample.migration : null;
  const text = eventText(event, id);
  return { place, text, isSample: event.type === 'sample', migration };
}

function placeOf(text: string): Place {
  const [, revision, index] = /^(\d{1,15})(?:-(\d{1,6}))?$/.exec(text) ?? [];
  if (revision !== undefined) return { revision: Number(revision), index: index === undefined ? all : Number(index) };
  throw new UserError(
    'invalid-input',
    `'${text.slice(0, 40)}' is not the id of an event.`,
    'Send the id of the last event that was read as Last-Event-ID, or leave it out.',
  );
}

/** As it goes to a reader. @param id where in the history; null for what cannot be asked for again */
export function eventText(event: EventView, id: string | null): string {
  return `${id === null ? '' : `id: ${id}\n`}data: ${JSON.stringify(event)}\n\n`;
}
