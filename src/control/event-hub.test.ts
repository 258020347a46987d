/** Readers of events: nothing is lost and nothing told twice, wherever they break off. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../runtime/clock.ts';
import { EventHub, type Wish } from './event-hub.ts';
import { FakeFleet, until } from './fake-fleet.ts';

let fleet: FakeFleet;
let hub: EventHub;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
  hub = new EventHub(fleet.plane, systemClock, 0);
});
afterEach(() => fleet.stopServer());

class Reader {
  text = '';
  unread = 0;
  readonly stop = new AbortController();
  readonly done: Promise<void>;

  constructor(lastEventId: string | null = null, wish: Partial<Wish> = {}) {
    this.done = hub.serve(
      {
        lastEventId,
        signal: this.stop.signal,
        write: (bytes) => void (this.text += typeof bytes === 'string' ? bytes : Buffer.from(bytes).toString()),
        unreadBytes: () => this.unread,
        cut: () => this.stop.abort(),
      },
      { migration: null, samples: true, ...wish },
    );
  }

  get messages(): { id: string | null; says: string }[] {
    return this.text.split('\n\n').flatMap((message) => {
      const id = /^id: (.*)$/m.exec(message)?.[1] ?? null;
      const data = /^data: (.*)$/m.exec(message)?.[1];
      return data === undefined ? [] : [{ id, says: (JSON.parse(data) as { says: string }).says }];
    });
  }

  async end(): Promise<void> {
    this.stop.abort();
    await this.done;
  }
}

const label = async (value: string): Promise<void> => {
  await fleet.plane.fleet.change((draft) => {
    for (const name of ['h1', 'h2']) {
      draft.putHost({ ...fleet.plane.fleet.findHost(name), labels: { value } });
    }
  });
};

describe('a reader', () => {
  test('that breaks off anywhere, also in the middle of a commit, goes on exactly there', async () => {
    const whole = new Reader();
    for (let i = 0; i < 4; i++) await label(String(i));
    await until('all told', () => whole.messages.length === 8);
    const ids = whole.messages.map(({ id }) => id);
    expect(new Set(ids).size).toBe(8);
    for (const [at, id] of ids.entries()) {
      const rest = new Reader(id);
      await until('the rest told', () => at === 7 || rest.messages.length === 7 - at);
      expect(rest.messages).toEqual(whole.messages.slice(at + 1));
      await rest.end();
    }
    await whole.end();
    // Nobody reads any more: what was told is only in the history of the store.
    const later = new Reader(ids[2] ?? null);
    await until('the rest told', () => later.messages.length === 5);
    expect(later.messages).toEqual(whole.messages.slice(3));
    await later.end();
  });

  test('that does not read is not written to, and goes on when it does', async () => {
    const slow = new Reader();
    const quick = new Reader();
    slow.unread = 10_000_000;
    for (let i = 0; i < 5; i++) await label(String(i));
    await until('the other told', () => quick.messages.length === 10);
    expect(slow.messages).toEqual([]);
    slow.unread = 0;
    await until('told', () => slow.messages.length === 10);
    expect(slow.messages).toEqual(quick.messages);
    await Promise.all([slow.end(), quick.end()]);
  });

  test('that is too far behind is cut off, and misses nothing when it comes back', async () => {
    const slow = new Reader();
    await label('first');
    await until('told', () => slow.messages.length === 2);
    slow.unread = 10_000_000;
    for (let i = 0; i < 9_000; i++)
      fleet.plane.live.emit({ kind: 'alarm', at: 0, about: 'x', says: 'y'.repeat(4_000) });
    await label('second');
    await slow.done;
    expect(slow.stop.signal.aborted).toBe(true);
    const again = new Reader(slow.messages.at(-1)?.id ?? null);
    await until('told', () => again.messages.filter(({ id }) => id !== null).length === 2);
    await again.end();
  });

  test('is told when things happened, whenever it asks', async () => {
    await label('early');
    const early = fleet.clock.now();
    await fleet.pass(3_600_000, 60_000);
    await label('late');
    const late = fleet.clock.now();
    await fleet.pass(3_600_000, 60_000);
    const reader = new Reader('0');
    const times = (value: string): number[] =>
      [...reader.text.matchAll(/^data: (.*)$/gm)]
        .map(([, data]) => JSON.parse(data!) as { at: number; host?: { labels: { value?: string } } })
        .flatMap(({ at, host }) => (host?.labels.value === value ? [at] : []));
    await until('told', () => times('late').length >= 2);
    expect(times('early').slice(0, 2)).toEqual([early, early]);
    // What is told of rooms is shown with the hosts as they are now.
    expect(times('late').slice(-2)).toEqual([late, late]);
    await reader.end();
  });

  test('that asks for an event that cannot be is refused', async () => {
    await expect(new Reader('12x').done).rejects.toMatchObject({ code: 'invalid-input' });
  });
});
