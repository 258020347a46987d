/** Addresses that are told of events, and what is to be sent there: kept until it was taken, so that nothing is lost by a restart. */

export interface WebhookRecord {
  readonly schema: 1;
  readonly id: string;
  readonly url: string;
  /** Patterns of topics: `migration.*`, `failure.*`, `drain.completed`, `*`. */
  readonly on: readonly string[];
  /** What deliveries are signed with; in the clear, because signing needs it. */
  readonly secret: string;
  readonly createdAt: number;
  readonly createdBy: string;
  /** Up to which revision of the store events were made into deliveries. */
  readonly cursor: number;
}

export interface DeliveryRecord {
  readonly schema: 1;
  readonly id: string;
  readonly webhook: string;
  readonly topic: string;
  readonly at: number;
  /** What is sent, as JSON: signed as it stands here. */
  readonly body: string;
  readonly attempts: number;
  readonly state: 'waiting' | 'delivered' | 'given-up';
  /** When it is tried next, while it waits; else when it ended. */
  readonly nextAt: number;
  /** HTTP status of the last answer. */
  readonly status: number | null;
  /** Why the last attempt did not succeed. */
  readonly says: string | null;
}
