/**
 * Users, their sessions, and tokens: what a request proves itself with, and how that is given and taken away. All of it is in
 * the store, secrets only as hashes, so a session outlives the server that began it.
 *
 * Not here: which operation needs which role (the endpoint table), cookies and headers (credentials.ts).
 */
import { createHash, randomBytes } from 'node:crypto';
import { lesserRole } from '../model/access.ts';
import type { Actor, PasswordHash, Role, SessionRecord, TokenRecord, UserRecord } from '../model/access.ts';
import { UserError } from '../model/failure.ts';
import { didYouMean, newId } from '../model/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type { Draft, Fleet } from './fleet.ts';
import { LoginLimit } from './login-limit.ts';
import { hashPassword, passwordMatches } from './passwords.ts';
import { doneBefore, noteRequest, type RequestKey } from './requests.ts';

/** A day of work; then one logs in again. */
export const sessionMs = 12 * 3_600_000;
/** Of one user; a new one ends the oldest. */
const sessionsPerUser = 20;
const tokensPerUser = 50;
const usersLimit = 1_000;
const tokensLimit = 5_000;
const perSweep = 100;
/** Names that the audit log gives to what is no user. */
const reserved = ['bootstrap', 'nobody'];

export const bootstrapActor: Actor = {
  name: 'bootstrap',
  role: 'admin',
  via: 'bootstrap',
  token: null,
  user: null,
  expiresAt: null,
  session: null,
};

interface Parts {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly random: Random;
  /** Of scrypt; as it should be where it is left out. */
  readonly passwordCost?: number | undefined;
}

export interface NewToken {
  readonly name: string;
  readonly role: Role;
  readonly user: string | null;
  readonly expiresInMs: number | null;
}

export function secretHash(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

export class People {
  readonly #fleet: Fleet;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limit: LoginLimit;
  readonly #cost: number | undefined;

  constructor({ fleet, clock, random, passwordCost }: Parts) {
    this.#cost = passwordCost;
    this.#fleet = fleet;
    this.#clock = clock;
    this.#random = random;
    this.#limit = new LoginLimit(clock);
  }

  /** Whose token that is; undefined: nobody's, or not any more. */
  ofToken(secret: string): Actor | undefined {
    const token = this.#fleet.plain('token').get(secretHash(secret));
    if (token === undefined || this.#isOver(token.expiresAt)) return undefined;
    const role = this.roleOf(token);
    if (role === undefined) return undefined;
    const { user, expiresAt } = token;
    const name = user ?? `token:${token.name}`;
    return { name, role, via: 'token', token: token.name, user, expiresAt, session: null };
  }

  /** Whose session that is; undefined: nobody's, or not any more. */
  ofSession(secret: string): Actor | undefined {
    const hash = secretHash(secret);
    const session = this.#fleet.plain('session').get(hash);
    if (session === undefined || this.#isOver(session.expiresAt)) return undefined;
    const user = this.#fleet.plain('user').get(session.user);
    return user && actorOf(user, session, hash);
  }

  /** What a token may do: no more than its user may, today. Undefined: its user is gone. */
  roleOf(token: TokenRecord): Role | undefined {
    if (token.user === null) return token.role;
    const user = this.#fleet.plain('user').get(token.user);
    return user && lesserRole(token.role, user.role);
  }

  /** @throws UserError login-failed, too-many-requests */
  async login(name: string, password: string, address: string): Promise<{ actor: Actor; secret: string }> {
    const giveBack = this.#limit.take(name, address);
    const kept = this.#fleet.plain('user').get(name)?.password ?? null;
    const failed = new UserError('login-failed', 'Name and password do not belong together.', 'Check both.');
    if (!(await passwordMatches(password, kept, this.#cost))) throw failed;
    giveBack();
    const secret = randomBytes(32).toString('base64url');
    const hash = secretHash(secret);
    const createdAt = this.#clock.now();
    const session: SessionRecord = { schema: 1, user: name, createdAt, expiresAt: createdAt + sessionMs };
    const user = await this.#fleet.change((draft) => {
      const now = draft.plain('user', name);
      // Changed while it was checked.
      if (now === undefined || now.password?.hash !== kept?.hash) throw failed;
      const open = this.#sessionsOf(name).toSorted(([, a], [, b]) => b.createdAt - a.createdAt);
      for (const [old] of open.slice(sessionsPerUser - 1)) draft.removePlain('session', old);
      draft.putPlain('session', hash, session);
      return now;
    });
    return { actor: actorOf(user, session, hash), secret };
  }

  /** The session it is done in goes on, others of the user end. @throws UserError forbidden, login-failed, too-many-requests */
  async changePassword(
    { user: name, session }: Actor,
    { oldPassword, newPassword }: { readonly oldPassword: string; readonly newPassword: string },
    address: string,
  ): Promise<void> {
    if (name === null) {
      const hint = 'Sign in by name and password, or use a token of a user: drover token create NAME --user NAME.';
      throw new UserError('forbidden', 'This token belongs to no user, so there is no password to change.', hint);
    }
    // Who has found an open session must not guess what else it opens.
    const giveBack = this.#limit.take(name, address);
    const kept = this.#fleet.plain('user').get(name)?.password ?? null;
    const failed = new UserError(
      'login-failed',
      'The old password is not the right one.',
      'Nothing was changed. Try again.',
    );
    if (!(await passwordMatches(oldPassword, kept, this.#cost))) throw failed;
    giveBack();
    const password = await hashPassword(newPassword, this.#cost);
    await this.#fleet.change((draft) => {
      const user = draft.plain('user', name);
      // Changed while it was checked.
      if (user === undefined || user.password?.hash !== kept?.hash) throw failed;
      draft.putPlain('user', name, { ...user, password });
      this.#endSessions(draft, name, session);
    });
  }

  async logout({ session }: Actor): Promise<void> {
    if (session === null) {
      throw new UserError(
        'forbidden',
        'There is no session to end: this request was made with a token.',
        'A token ends when it is revoked: drover token revoke NAME.',
      );
    }
    await this.#fleet.change((draft) => {
      if (draft.plain('session', session)) draft.removePlain('session', session);
    });
  }

  /** @throws UserError not-found */
  find(name: string): UserRecord {
    const users = this.#fleet.plain('user');
    const found = users.get(name);
    if (found) return found;
    const near = didYouMean(name, [...users.keys()]);
    const hint = near === undefined ? '`drover user list` shows them all.' : `Did you mean '${near}'?`;
    throw new UserError('not-found', `There is no user '${name}'.`, hint);
  }

  /** @throws UserError already-exists, invalid-input */
  async add(
    wanted: { readonly name: string; readonly role: Role; readonly password: string | null },
    by: string,
    request: RequestKey | null,
  ): Promise<UserRecord> {
    const { name, role } = wanted;
    if (reserved.includes(name)) {
      throw new UserError('invalid-input', `'${name}' is no name for a user.`, 'Choose another.');
    }
    const password = await maybeHash(wanted.password, this.#cost);
    return this.#fleet.change((draft) => {
      const before = doneBefore(this.#fleet, request);
      if (before !== undefined) return this.find(before);
      if (draft.plain('user', name)) {
        const hint = `To change it: drover user set-role ${name} ROLE.`;
        throw new UserError('already-exists', `There is a user '${name}' already.`, hint);
      }
      refuseMore(this.#fleet.plain('user').size, usersLimit, 'users');
      const user: UserRecord = { schema: 1, name, role, password, createdAt: this.#clock.now(), createdBy: by };
      draft.putPlain('user', name, user);
      noteRequest(draft, request, name, user.createdAt);
      return user;
    });
  }

  /** @param check of the record before it is changed, in the same decision */
  async update(
    name: string,
    changes: { readonly role?: Role | undefined; readonly password?: string | null | undefined },
    check: (user: UserRecord) => void,
  ): Promise<UserRecord> {
    this.find(name);
    const password = changes.password === undefined ? undefined : await maybeHash(changes.password, this.#cost);
    return this.#fleet.change((draft) => {
      const user = this.find(name);
      check(user);
      const next: UserRecord = {
        ...user,
        role: changes.role ?? user.role,
        password: password === undefined ? user.password : password,
      };
      draft.putPlain('user', name, next);
      if (password !== undefined) this.#endSessions(draft, name);
      return next;
    });
  }

  /** @returns the names of the tokens that went with it */
  remove(name: string): Promise<string[]> {
    return this.#fleet.change((draft) => {
      this.find(name);
      const tokens = this.#tokensOf(name);
      for (const [hash] of tokens) draft.removePlain('token', hash);
      this.#endSessions(draft, name);
      draft.removePlain('user', name);
      return tokens.map(([, token]) => token.name);
    });
  }

  counts(user: string): { tokens: number; sessions: number } {
    const open = this.#sessionsOf(user).filter(([, { expiresAt }]) => !this.#isOver(expiresAt));
    return { tokens: this.#tokensOf(user).length, sessions: open.length };
  }

  /** The secret is in the answer and nowhere else. @throws UserError already-exists, not-found */
  async makeToken({ name, role, user, expiresInMs }: NewToken, by: string) {
    const secret = `drover_${randomBytes(32).toString('base64url')}`;
    const token = await this.#fleet.change((draft) => {
      if (user !== null) this.find(user);
      const tokens = this.#fleet.plain('token');
      if ([...tokens.values()].some((other) => other.name === name)) {
        const hint = `Choose another name, or revoke it first: drover token revoke ${name}.`;
        throw new UserError('already-exists', `There is a token '${name}' already.`, hint);
      }
      refuseMore(tokens.size, tokensLimit, 'tokens');
      if (user !== null) refuseMore(this.#tokensOf(user).length, tokensPerUser, `tokens of ${user}`);
      const createdAt = this.#clock.now();
      const made: TokenRecord = {
        schema: 1,
        id: newId('token', createdAt, this.#random.bytes(8)),
        name,
        user,
        role,
        createdAt,
        createdBy: by,
        expiresAt: expiresInMs === null ? null : createdAt + expiresInMs,
      };
      draft.putPlain('token', secretHash(secret), made);
      return made;
    });
    return { token, secret };
  }

  /** @param ref id or name */
  revoke(ref: string): Promise<TokenRecord> {
    return this.#fleet.change((draft) => {
      const tokens = [...this.#fleet.plain('token')];
      const [hash, token] = tokens.find(([, { id, name }]) => id === ref || name === ref) ?? [];
      if (hash === undefined || token === undefined) {
        const near = didYouMean(
          ref,
          tokens.map(([, { name }]) => name),
        );
        const hint = near === undefined ? '`drover token list` shows them all.' : `Did you mean '${near}'?`;
        throw new UserError('not-found', `There is no token '${ref}'.`, hint);
      }
      draft.removePlain('token', hash);
      return token;
    });
  }

  /** Drops what has run out; a bounded number at a time. */
  async tidy(): Promise<void> {
    const sessions = [...this.#fleet.plain('session')].filter(([, { expiresAt }]) => this.#isOver(expiresAt));
    const tokens = [...this.#fleet.plain('token')].filter(([, { expiresAt }]) => this.#isOver(expiresAt));
    if (sessions.length + tokens.length === 0) return;
    await this.#fleet.change((draft) => {
      const some = perSweep / 2;
      for (const [hash] of sessions.slice(0, some)) {
        if (draft.plain('session', hash)) draft.removePlain('session', hash);
      }
      for (const [hash] of tokens.slice(0, some)) if (draft.plain('token', hash)) draft.removePlain('token', hash);
    });
  }

  #sessionsOf(user: string): [string, SessionRecord][] {
    return [...this.#fleet.plain('session')].filter(([, session]) => session.user === user);
  }

  #tokensOf(user: string): [string, TokenRecord][] {
    return [...this.#fleet.plain('token')].filter(([, token]) => token.user === user);
  }

  #endSessions(draft: Draft, user: string, but: string | null = null): void {
    for (const [hash] of this.#sessionsOf(user)) if (hash !== but) draft.removePlain('session', hash);
  }

  #isOver(at: number | null): boolean {
    return at !== null && at <= this.#clock.now();
  }
}

function actorOf(user: UserRecord, { expiresAt }: SessionRecord, session: string): Actor {
  return { name: user.name, role: user.role, via: 'session', token: null, user: user.name, expiresAt, session };
}

async function maybeHash(password: string | null, cost: number | undefined): Promise<PasswordHash | null> {
  return password === null ? null : hashPassword(password, cost);
}

function refuseMore(there: number, limit: number, what: string): void {
  if (there < limit) return;
  throw new UserError('wrong-state', `There are ${there} ${what} already.`, 'Remove some that are not needed.');
}
