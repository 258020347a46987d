/** What of a request goes into the audit log: whether at all, what it was done to, and its words without secrets. */
import type { AuditRecord } from '../model/access.ts';
import { UserError } from '../model/failure.ts';
import type { Endpoint, EndpointName } from '../wire/endpoints.ts';
import type { Call } from './handler.ts';

const longestRequest = 2_000;
const longestReason = 500;
const secretFields = new Set(['password', 'oldPassword', 'newPassword', 'secret', 'token']);
/** A viewer may do them, and they are written down all the same. */
const ofOneself: ReadonlySet<EndpointName> = new Set(['login', 'logout', 'changeMyPassword']);

interface Input {
  readonly params?: Readonly<Record<string, unknown>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
}

/** Whatever changes something, and what opens a guest or takes the store away. Looking and trying out are not written down. */
export function isAudited(name: EndpointName, { method, role, stream }: Endpoint, { body, query }: Input): boolean {
  if (fieldOf(body, 'dryRun') === true || fieldOf(query, 'dryRun') === 'true') return false;
  if (ofOneself.has(name) || stream === 'tunnel' || stream === 'lines') return true;
  return method !== 'GET' && role !== 'viewer';
}

export type Subject = Pick<AuditRecord, 'to' | 'request' | 'because'>;

/** Taken before it is done: what is removed has a name only then. */
export function subjectOf({ plane }: Call, { params = {}, query = {}, body }: Input, reason: string | null): Subject {
  const [kind, ref] = Object.entries(params)[0] ?? [];
  const name = fieldOf(body, 'name');
  const rest = { ...query, ...(body !== null && typeof body === 'object' ? body : {}) };
  const text = JSON.stringify(rest, (key, value: unknown) => (secretFields.has(key) ? '(secret)' : value));
  const because = reason ?? fieldOf(body, 'because') ?? fieldOf(body, 'why');
  return {
    to:
      kind === undefined
        ? typeof name === 'string'
          ? name
          : null
        : `${kind} ${nameOf(plane.fleet, kind, String(ref))}`,
    request: text === '{}' ? null : text.slice(0, longestRequest),
    because: typeof because === 'string' ? because.slice(0, longestReason) : null,
  };
}

/** From the header `drover-reason`, percent-encoded where it is not ASCII. */
export function reasonIn(header: string | string[] | undefined): string | null {
  if (typeof header !== 'string' || header === '') return null;
  try {
    return decodeURIComponent(header);
  } catch (error) {
    throw new UserError('invalid-input', 'The header drover-reason cannot be read.', 'Percent-encode it.', {
      cause: error,
    });
  }
}

function nameOf(fleet: Call['plane']['fleet'], kind: string, ref: string): string {
  // An id or a name; either way the log says the name.
  if (kind === 'vm') return [...fleet.vms.values()].find(({ id }) => id === ref)?.name ?? ref;
  if (kind === 'host') return [...fleet.hosts.values()].find(({ id }) => id === ref)?.name ?? ref;
  return ref;
}

function fieldOf(value: unknown, field: string): unknown {
  return value !== null && typeof value === 'object' ? (value as Record<string, unknown>)[field] : undefined;
}
