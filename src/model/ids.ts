/**
 * Names of things that are never reused: a prefix that says the kind, then a time-ordered random part.
 * Time and chance are arguments, so that a simulated fleet makes the same ids from the same seed.
 */

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

export type HostId = Branded<'host'>;
export type VmId = Branded<'vm'>;
export type MigrationId = Branded<'migration'>;
export type RecoveryId = Branded<'recovery'>;
export type DrainId = Branded<'drain'>;
export type TaskId = Branded<'task'>;
export type PlanId = Branded<'plan'>;
export type DecisionId = Branded<'decision'>;

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'; // Crockford's base32, in sorting order

function base32(bytes: Uint8Array): string {
  let bits = 0;
  let value = 0;
  let out = '';
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += alphabet[(value >>> bits) & 31];
      value &= (1 << bits) - 1;
    }
  }
  if (bits > 0) out += alphabet[(value << (5 - bits)) & 31];
  return out;
}

const prefixes = {
  host: 'host',
  vm: 'vm',
  migration: 'mig',
  recovery: 'rec',
  drain: 'drn',
  task: 'task',
  plan: 'plan',
  decision: 'dec',
  token: 'tok',
  audit: 'aud',
  webhook: 'hook',
  delivery: 'dlv',
} as const;
interface IdOf {
  host: HostId;
  vm: VmId;
  migration: MigrationId;
  recovery: RecoveryId;
  drain: DrainId;
  task: TaskId;
  plan: PlanId;
  decision: DecisionId;
  token: string;
  audit: string;
  webhook: string;
  delivery: string;
}

/**
 * A new id: prefix, 48 bits of time in ms, 64 random bits.
 * @param random eight random bytes
 */
export function newId<Kind extends keyof IdOf>(kind: Kind, nowMs: number, random: Uint8Array): IdOf[Kind] {
  const bytes = new Uint8Array(14);
  let time = Math.floor(nowMs);
  for (let i = 5; i >= 0; i--) {
    bytes[i] = time % 256;
    time = Math.floor(time / 256);
  }
  bytes.set(random.subarray(0, 8), 6);
  // The cast is where a plain string becomes an id; everything downstream keeps the brand.
  return `${prefixes[kind]}_${base32(bytes)}` as IdOf[Kind];
}

/** Names people give: what a label of a host name may be, so that they can be used in file and link names. */
export const namePattern = /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/;

/** The closest of `candidates` to a mistyped `word`, or undefined when none is near (edit distance over a third). */
export function didYouMean(word: string, candidates: readonly string[]): string | undefined {
  let best: { word: string; distance: number } | undefined;
  for (const candidate of candidates.slice(0, 2000)) {
    const distance = editDistance(word, candidate);
    if (distance <= Math.max(1, Math.floor(candidate.length / 3)) && (!best || distance < best.distance)) {
      best = { word: candidate, distance };
    }
  }
  return best?.word;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, substitution));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}
