/**
 * Who may do what: people and programs that use the API, what they prove it with, and what is remembered of what they did.
 * Secrets are never here, only what they can be checked against.
 */

/** From the one who may only look to the one who may do everything. */
export const roles = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof roles)[number];

/** Whether `role` is enough where `needed` is asked for. */
export function roleSuffices(role: Role, needed: Role): boolean {
  return roles.indexOf(role) >= roles.indexOf(needed);
}

/** The lesser of two. */
export function lesserRole(a: Role, b: Role): Role {
  return roleSuffices(a, b) ? b : a;
}

/** What a password is checked against (RFC 7914); salt and hash in base64. */
export interface PasswordHash {
  readonly kind: 'scrypt';
  readonly cost: number;
  readonly blockSize: number;
  readonly parallelization: number;
  readonly salt: string;
  readonly hash: string;
}

export interface UserRecord {
  readonly schema: 1;
  /** Never changes: it is what the audit log knows the person by. */
  readonly name: string;
  readonly role: Role;
  /** Null: there is no logging in, only tokens. */
  readonly password: PasswordHash | null;
  readonly createdAt: number;
  readonly createdBy: string;
}

export interface TokenRecord {
  readonly schema: 1;
  readonly id: string;
  /** What it is for; unique. */
  readonly name: string;
  /** Whose it is: it can do no more than this user. Null: a program's, which stands by itself. */
  readonly user: string | null;
  readonly role: Role;
  readonly createdAt: number;
  readonly createdBy: string;
  /** Null: until it is revoked. */
  readonly expiresAt: number | null;
}

export interface SessionRecord {
  readonly schema: 1;
  readonly user: string;
  readonly createdAt: number;
  readonly expiresAt: number;
}

/** Who asks. */
export interface Actor {
  /** The user; for a token without one `token:NAME`; `bootstrap` for the token of the server's state directory. */
  readonly name: string;
  readonly role: Role;
  readonly via: 'bootstrap' | 'token' | 'session';
  /** Name of the token. */
  readonly token: string | null;
  /** Null: neither a person nor their token. */
  readonly user: string | null;
  readonly expiresAt: number | null;
  /** SHA-256 of what the cookie holds, where there is one. */
  readonly session: string | null;
}

/** One thing that somebody did, or tried to do and was not let. */
export interface AuditRecord {
  readonly schema: 1;
  readonly id: string;
  readonly at: number;
  readonly by: string;
  readonly via: Actor['via'] | 'login';
  /** Name of the token. */
  readonly token: string | null;
  readonly address: string;
  /** Name of the operation in the endpoint table. */
  readonly did: string;
  /** What it was done to, e.g. "vm web1"; null: nothing with a name. */
  readonly to: string | null;
  /** Query and body in JSON, without secrets, cut to a bounded length. */
  readonly request: string | null;
  readonly because: string | null;
  /** `done`, or the code of the error. */
  readonly outcome: string;
  readonly says: string | null;
}
