/**
 * What can go wrong, in words a user can act on.
 *
 * Three kinds, kept apart: a `UserError` is a mistake or a refusal that somebody can mend; a `Failure` is how a
 * migration or a guest ended and is stored in its record; everything else is a bug and stays an ordinary Error.
 * Not here: HTTP status codes (wire/errors.ts) and exit codes (cli/main.ts).
 */

/** A request that cannot be done as asked: what happened to which object, and what to do next. */
export class UserError extends Error {
  override readonly name = 'UserError';
  readonly code: UserErrorCode;
  readonly hint: string;
  /** When it may be tried again, where that is known. */
  readonly retryAfterMs: number | undefined;

  constructor(
    code: UserErrorCode,
    message: string,
    hint: string,
    options: { readonly cause?: unknown; readonly retryAfterMs?: number } = {},
  ) {
    super(message, options);
    this.code = code;
    this.hint = hint;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Stable codes of the API and the CLI. The class decides HTTP status and exit code. */
export const userErrorCodes = {
  'invalid-input': 'usage',
  'unknown-field': 'usage',
  'too-large': 'usage',
  'unsupported-media-type': 'usage',
  'method-not-allowed': 'usage',
  'not-found': 'not-found',
  'already-exists': 'conflict',
  busy: 'conflict',
  'wrong-state': 'conflict',
  'not-cancellable': 'conflict',
  'same-host': 'refused',
  'no-room': 'refused',
  cordoned: 'refused',
  unreachable: 'refused',
  incompatible: 'refused',
  'against-rules': 'refused',
  'post-copy-unavailable': 'refused',
  'policy-conflict': 'refused',
  'live-unsafe': 'refused',
  'key-reused': 'conflict',
  'version-mismatch': 'conflict',
  unauthorized: 'unauthorized',
  'login-failed': 'unauthorized',
  forbidden: 'forbidden',
  'too-many-requests': 'unavailable',
  internal: 'unavailable',
  unavailable: 'unavailable',
  'timed-out': 'unavailable',
} as const satisfies Record<string, UserErrorClass>;

export type UserErrorCode = keyof typeof userErrorCodes;
export type UserErrorClass =
  | 'usage'
  | 'not-found'
  | 'conflict'
  | 'refused'
  | 'unauthorized'
  | 'forbidden'
  | 'unavailable';

/** How a migration ended badly. Every code is explained in docs/reference/failures.md. */
export const failureCodes = [
  'target-unreachable',
  'target-did-not-start',
  'target-died',
  'target-refused-state',
  'source-died',
  'source-refused',
  'link-lost',
  'no-convergence',
  'deadline-passed',
  'shutdown-ignored',
  'guest-start-failed',
  'guest-powered-off',
  'order-refused',
  'end-unknown',
  'source-host-lost',
  'target-host-lost',
] as const;

export type FailureCode = (typeof failureCodes)[number];

export interface Failure {
  readonly code: FailureCode;
  /** One sentence: what happened, to what. */
  readonly message: string;
  /** What the user can do about it. */
  readonly hint: string;
  /** The words of QEMU or the system underneath, where there are any. */
  readonly detail?: string;
}

/** What happened and what the system underneath said of it, in one line. */
export function inWords({
  message,
  detail,
}: {
  readonly message: string;
  readonly detail?: string | undefined;
}): string {
  return detail === undefined || detail === '' ? message : `${message} ${detail.replaceAll(/\s*\n\s*/g, ' ')}`;
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
