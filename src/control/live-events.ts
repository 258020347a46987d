/**
 * What is worth telling at once and is not kept: progress samples, alarms, and hosts falling silent or coming back. Stored
 * changes do not pass through here; who wants those watches the store.
 */
import type { HostId, MigrationId } from '../model/ids.ts';
import type { MigrationSample } from '../model/migration.ts';

export type LiveEvent =
  | { readonly kind: 'sample'; readonly at: number; readonly sample: MigrationSample }
  | { readonly kind: 'alarm'; readonly at: number; readonly about: string; readonly says: string }
  | { readonly kind: 'host'; readonly at: number; readonly host: HostId; readonly says: string };

export class LiveEvents {
  readonly #listeners = new Set<(event: LiveEvent) => void>();
  readonly #samples = new Map<MigrationId, MigrationSample>();

  emit(event: LiveEvent): void {
    if (event.kind === 'sample') this.#samples.set(event.sample.migration, event.sample);
    for (const listener of this.#listeners) listener(event);
  }

  /** @returns call it to be told no more */
  subscribe(listener: (event: LiveEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The newest sample of a migration that is running. */
  sampleOf(migration: MigrationId): MigrationSample | undefined {
    return this.#samples.get(migration);
  }

  forgetSamples(migration: MigrationId): void {
    this.#samples.delete(migration);
  }
}
