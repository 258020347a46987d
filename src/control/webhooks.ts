/**
 * Webhooks: events become deliveries in the store, and each is sent until it was taken.
 *
 *     store.watch from the cursor -> ONE commit: deliveries of this event, and the cursor behind it
 *     every second: the oldest delivery of each webhook, if it is due -> POST -> delivered, or waiting for its next attempt
 *
 * So a restart loses nothing, and what was sent without the answer being written down is sent again: at least once, in order for
 * each webhook. A receiver knows a delivery by its id.
 *
 * Not here: what the topics are (topics.ts).
 */
import { createHmac, randomBytes } from 'node:crypto';
import { UserError, messageOf } from '../model/failure.ts';
import { newId } from '../model/ids.ts';
import type { DeliveryRecord, WebhookRecord } from '../model/webhook.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import { HistoryGone } from '../store/store.ts';
import type { Commit, Store } from '../store/store.ts';
import type { EventView } from '../wire/endpoints.ts';
import type { Fleet } from './fleet.ts';
import { doneBefore, noteRequest, type RequestKey } from './requests.ts';
import { matches, topicsOf } from './topics.ts';

const webhooksLimit = 20;
/** Of one webhook; more than that, and the oldest are given up. */
const waitingLimit = 1_000;
const keepEnded = 100;
const perSweep = 100;
const answerWithinMs = 10_000;
const firstPauseMs = 1_000;
const longestPauseMs = 10 * 60_000;
/** Then nobody waits for it any more. */
const giveUpAfterMs = 24 * 3_600_000;
/** The cursor is written without a delivery when it is so far behind: the store forgets its history some time. */
const cursorStep = 500;
const longestBody = 128 * 1024;
const rememberedTopics = 20_000;

/** What sends: its status, or it throws. */
export type Post = (
  url: string,
  headers: Readonly<Record<string, string>>,
  body: string,
) => Promise<{ status: number }>;

interface Parts {
  readonly fleet: Fleet;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The events of a commit. */
  readonly eventsOf: (commit: Commit) => readonly EventView[];
  readonly post?: Post | undefined;
}

export class Webhooks {
  readonly #parts: Parts;
  readonly #post: Post;
  readonly #stop = new AbortController();
  readonly #busy = new Set<string>();
  /** The last topics of each thing: a record that changes without changing its state is told once. */
  readonly #lastTopics = new Map<string, string>();
  #watching = false;
  #newest = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#post = parts.post ?? postByFetch;
  }

  stop(): void {
    this.#stop.abort();
  }

  /** @throws UserError not-found */
  find(id: string): WebhookRecord {
    const found = this.#parts.fleet.plain('webhook').get(id);
    if (found) return found;
    throw new UserError('not-found', `There is no webhook '${id}'.`, '`drover webhook list` shows them all.');
  }

  /** Oldest first. */
  deliveriesOf(webhook: string): DeliveryRecord[] {
    return [...this.#parts.fleet.plain('delivery').values()].filter((delivery) => delivery.webhook === webhook);
  }

  /** @returns the secret too, unless the same request made it before */
  async add(
    wanted: { readonly url: string; readonly on: readonly string[]; readonly secret: string | null },
    by: string,
    request: RequestKey | null,
  ): Promise<{ webhook: WebhookRecord; secret: string | null }> {
    const { fleet, clock, random } = this.#parts;
    const { url, on } = wanted;
    if (!URL.canParse(url)) {
      throw new UserError('invalid-input', `'${url}' is no address.`, 'Write https://HOST/PATH.');
    }
    const secret = wanted.secret ?? randomBytes(24).toString('base64url');
    return fleet.change((draft) => {
      const before = doneBefore(fleet, request);
      if (before !== undefined) return { webhook: this.find(before), secret: null };
      if (fleet.plain('webhook').size >= webhooksLimit) {
        throw new UserError('wrong-state', `There are ${webhooksLimit} webhooks already.`, 'Remove one of them.');
      }
      const createdAt = clock.now();
      const id = newId('webhook', createdAt, random.bytes(8));
      const cursor = fleet.revision;
      const webhook: WebhookRecord = { schema: 1, id, url, on: [...on], secret, createdAt, createdBy: by, cursor };
      draft.putPlain('webhook', id, webhook);
      noteRequest(draft, request, id, createdAt);
      return { webhook, secret };
    });
  }

  remove(id: string): Promise<WebhookRecord> {
    return this.#parts.fleet.change((draft) => {
      const webhook = this.find(id);
      draft.removePlain('webhook', id);
      return webhook;
    });
  }

  /** Sends one at once, whatever waits; it is not tried again. */
  async test(id: string): Promise<DeliveryRecord> {
    const { fleet, clock } = this.#parts;
    const webhook = this.find(id);
    const says = 'This is a test.';
    const delivery = this.#deliveryOf(webhook, 'webhook.test', { says, event: null });
    const outcome = await this.#attempt(webhook, delivery);
    const ended: DeliveryRecord = {
      ...delivery,
      ...outcome,
      state: outcome.says === null ? 'delivered' : 'given-up',
      attempts: 1,
      nextAt: clock.now(),
    };
    await fleet.change((draft) => draft.putPlain('delivery', ended.id, ended));
    return ended;
  }

  /** Once a second. */
  async tick(): Promise<void> {
    const { fleet, clock } = this.#parts;
    const webhooks = [...fleet.plain('webhook').values()];
    if (webhooks.length > 0 && !this.#watching) this.#watchOn();
    await this.#tidy();
    const now = clock.now();
    for (const webhook of webhooks) {
      const next = this.deliveriesOf(webhook.id).find(({ state }) => state === 'waiting');
      if (next === undefined || next.nextAt > now || this.#busy.has(webhook.id)) continue;
      this.#busy.add(webhook.id);
      void this.#send(webhook.id).finally(() => this.#busy.delete(webhook.id));
    }
  }

  #watchOn(): void {
    this.#watching = true;
    this.#watch()
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#parts.log.warn({ error }, 'events for webhooks could not be read');
      })
      .finally(() => (this.#watching = false));
  }

  /** Until there is no webhook any more. */
  async #watch(): Promise<void> {
    const { fleet, store, log } = this.#parts;
    const { signal } = this.#stop;
    const cursors = (): number[] => [...fleet.plain('webhook').values()].map(({ cursor }) => cursor);
    try {
      for await (const commit of store.watch('', Math.min(...cursors()), signal)) {
        await fleet.caughtUp();
        if (fleet.plain('webhook').size === 0) return;
        const told = this.#parts.eventsOf(commit).flatMap((event) => this.#newTopics(event));
        await this.#note(commit.revision, told);
      }
    } catch (error) {
      if (!(error instanceof HistoryGone)) throw error;
      log.warn({}, 'webhooks were away for longer than the store keeps its history');
      await this.#note(fleet.revision, [
        { topic: 'webhook.missed', says: 'Events were missed: ask for what there is.', event: null },
      ]);
    }
  }

  #newTopics(event: EventView): Told[] {
    const { about, topics } = topicsOf(event);
    const key = topics.join(' ');
    if (topics.length === 0 || this.#lastTopics.get(about) === key) return [];
    this.#lastTopics.delete(about);
    this.#lastTopics.set(about, key);
    for (const oldest of this.#lastTopics.keys()) {
      if (this.#lastTopics.size <= rememberedTopics) break;
      this.#lastTopics.delete(oldest);
    }
    return topics.map((topic) => ({ topic, says: event.says, event }));
  }

  /** Deliveries and cursor in one commit, so that each event is taken once. */
  async #note(revision: number, told: readonly Told[]): Promise<void> {
    const { fleet } = this.#parts;
    const behind = [...fleet.plain('webhook').values()].filter(({ cursor }) => cursor < revision);
    const wanted = behind.map((webhook) => ({
      webhook,
      mine: told.filter(
        ({ topic }) => topic === 'webhook.missed' || webhook.on.some((pattern) => matches(pattern, topic)),
      ),
    }));
    const due = wanted.filter(({ webhook, mine }) => mine.length > 0 || revision - webhook.cursor >= cursorStep);
    if (due.length === 0) return;
    await fleet.change((draft) => {
      for (const { webhook, mine } of due) {
        if (!draft.plain('webhook', webhook.id)) continue;
        for (const each of mine) {
          const delivery = this.#deliveryOf(webhook, each.topic, each);
          draft.putPlain('delivery', delivery.id, delivery);
        }
        draft.putPlain('webhook', webhook.id, { ...webhook, cursor: revision });
      }
    });
  }

  #deliveryOf(webhook: WebhookRecord, topic: string, { says, event }: Omit<Told, 'topic'>): DeliveryRecord {
    const { clock, random } = this.#parts;
    const at = clock.now();
    // Their ids are in the order of their events.
    this.#newest = Math.max(at, this.#newest + 1);
    const id = newId('delivery', this.#newest, random.bytes(8));
    const whole = JSON.stringify({ id, topic, at, says, event });
    const body = whole.length <= longestBody ? whole : JSON.stringify({ id, topic, at, says, event: null, cut: true });
    const rest = { at, body, attempts: 0, state: 'waiting', nextAt: at, status: null, says: null } as const;
    return { schema: 1, id, webhook: webhook.id, topic, ...rest };
  }

  /** What is due of one webhook, one after another. */
  async #send(id: string): Promise<void> {
    const { fleet, clock, log } = this.#parts;
    try {
      while (!this.#stop.signal.aborted) {
        const webhook = fleet.plain('webhook').get(id);
        const delivery = this.deliveriesOf(id).find(({ state }) => state === 'waiting');
        if (webhook === undefined || delivery === undefined || delivery.nextAt > clock.now()) return;
        const outcome = await this.#attempt(webhook, delivery);
        if (this.#stop.signal.aborted) return;
        const attempts = delivery.attempts + 1;
        const now = clock.now();
        const over = outcome.says === null ? 'delivered' : now - delivery.at > giveUpAfterMs ? 'given-up' : undefined;
        const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(attempts - 1, 20));
        const next: DeliveryRecord = {
          ...delivery,
          ...outcome,
          attempts,
          state: over ?? 'waiting',
          nextAt: over === undefined ? now + pauseMs : now,
        };
        await fleet.change((draft) => {
          if (draft.plain('delivery', next.id)) draft.putPlain('delivery', next.id, next);
        });
      }
    } catch (error) {
      log.info({ error }, 'a delivery could not be written down; it is made again');
    }
  }

  async #attempt(webhook: WebhookRecord, delivery: DeliveryRecord): Promise<Pick<DeliveryRecord, 'status' | 'says'>> {
    const at = this.#parts.clock.now();
    const headers = {
      'content-type': 'application/json',
      'user-agent': 'drover',
      'drover-delivery': delivery.id,
      'drover-topic': delivery.topic,
      'drover-signature': signatureOf(webhook.secret, at, delivery.body),
    };
    try {
      const { status } = await this.#post(webhook.url, headers, delivery.body);
      return { status, says: status >= 200 && status < 300 ? null : `it answered with status ${status}` };
    } catch (error) {
      const inner = error instanceof Error && error.cause !== undefined ? error.cause : error;
      return { status: null, says: messageOf(inner).slice(0, 300) || 'the connection failed' };
    }
  }

  /** Drops what is over and old, what nobody wants any more, and what is too much; a bounded number at a time. */
  async #tidy(): Promise<void> {
    const { fleet, clock } = this.#parts;
    const deliveries = fleet.plain('delivery');
    if (deliveries.size === 0) return;
    const gone: string[] = [];
    const givenUp: DeliveryRecord[] = [];
    for (const [webhook, of] of Map.groupBy(deliveries.values(), (delivery) => delivery.webhook)) {
      const ended = of.filter(({ state }) => state !== 'waiting');
      const waiting = of.filter(({ state }) => state === 'waiting');
      const old = fleet.plain('webhook').has(webhook) ? ended.slice(0, Math.max(0, ended.length - keepEnded)) : of;
      gone.push(...old.map(({ id }) => id));
      givenUp.push(...waiting.slice(0, Math.max(0, waiting.length - waitingLimit)));
    }
    if (gone.length + givenUp.length === 0) return;
    const says = `more than ${waitingLimit} were waiting`;
    await fleet.change((draft) => {
      for (const id of gone.slice(0, perSweep / 2)) if (draft.plain('delivery', id)) draft.removePlain('delivery', id);
      for (const delivery of givenUp.slice(0, perSweep / 2)) {
        if (draft.plain('delivery', delivery.id)?.state !== 'waiting') continue;
        draft.putPlain('delivery', delivery.id, { ...delivery, state: 'given-up', nextAt: clock.now(), says });
      }
    });
  }
}

interface Told {
  readonly topic: string;
  readonly says: string;
  readonly event: EventView | null;
}

/** `t=MS,v1=HEX`: HMAC-SHA256 over the time, a point and the body; the time lets a receiver refuse what is old. */
export function signatureOf(secret: string, atMs: number, body: string): string {
  return `t=${atMs},v1=${createHmac('sha256', secret).update(`${atMs}.${body}`).digest('hex')}`;
}

const postByFetch: Post = async (url, headers, body) => {
  // A redirect is no answer: it could lead anywhere.
  const init = {
    method: 'POST',
    headers,
    body,
    redirect: 'manual',
    signal: AbortSignal.timeout(answerWithinMs),
  } as const;
  const answer = await fetch(url, init);
  await answer.body?.cancel();
  return { status: answer.status };
};
