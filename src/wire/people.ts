/** Who uses the API: logging in, users, tokens, and what they did. Not here: what a role may do (each row of the table says its own). */
import { z } from 'zod';
import { roles } from '../model/access.ts';
import { after, name, timeMs, type Endpoint } from './endpoint.ts';

const role = z.enum(roles).describe('viewer looks, operator acts, admin says who may');
/** Long enough that guessing through the rate limit is hopeless; what it is made of is left to people. */
const password = z.string().min(10, 'a password has at least 10 characters').max(200);

export const meView = z.object({
  name: z.string().describe('the user; `token:NAME` for a token without one; `bootstrap` for the token of the server'),
  role,
  via: z.enum(['bootstrap', 'token', 'session']),
  token: z.string().nullable().describe('name of the token'),
  user: z.string().nullable(),
  expiresAt: timeMs.nullable().describe('null: it does not end by itself'),
});
export type MeView = z.infer<typeof meView>;

export const userView = z.object({
  name: z.string(),
  role,
  canLogIn: z.boolean().describe('whether it has a password'),
  tokens: z.number().int(),
  sessions: z.number().int().describe('open ones in browsers'),
  createdAt: timeMs,
  createdBy: z.string(),
});
export type UserView = z.infer<typeof userView>;

export const tokenView = z.object({
  id: z.string(),
  name: z.string().describe('what it is for'),
  user: z.string().nullable().describe('whose it is: it can do no more than this user; null: it stands by itself'),
  role: role.describe('what it may do, today'),
  createdAt: timeMs,
  createdBy: z.string(),
  expiresAt: timeMs.nullable().describe('null: until it is revoked'),
});
export type TokenView = z.infer<typeof tokenView>;

export const auditView = z.object({
  id: z.string(),
  at: timeMs,
  by: z.string().describe('who'),
  via: z.enum(['bootstrap', 'token', 'session', 'login']),
  token: z.string().nullable().describe('name of the token'),
  address: z.string().describe('where the request came from'),
  did: z.string().describe('name of the operation'),
  to: z.string().nullable().describe('what it was done to, e.g. "vm web1"'),
  request: z.string().nullable().describe('query and body as JSON, without secrets, perhaps cut'),
  because: z.string().nullable(),
  outcome: z.string().describe('`done`, or the code of the error'),
  says: z.string().nullable().describe('the words of the error'),
});
export type AuditView = z.infer<typeof auditView>;

const userParams = z.object({ user: z.string().min(1).max(100) });

export const peopleEndpoints = {
  login: {
    method: 'POST',
    path: '/login',
    summary: 'Begin a session: the answer sets a cookie that later requests of this browser are known by',
    role: 'none',
    body: z.object({ name: z.string().min(1).max(100), password: z.string().min(1).max(200) }).strict(),
    reply: meView,
  },
  logout: {
    method: 'POST',
    path: '/logout',
    summary: 'End the session of this cookie',
    role: 'viewer',
    reply: z.object({ loggedOut: z.string() }),
  },
  getMe: { method: 'GET', path: '/me', role: 'viewer', summary: 'Who asks, and what they may do', reply: meView },
  changeMyPassword: {
    method: 'PUT',
    path: '/me/password',
    role: 'viewer',
    summary: 'Change your own password; your other sessions end',
    body: z.object({ oldPassword: z.string().max(200), newPassword: password }).strict(),
    reply: meView,
  },
  listUsers: { method: 'GET', path: '/users', role: 'admin', summary: 'All users', reply: z.array(userView) },
  createUser: {
    method: 'POST',
    path: '/users',
    role: 'admin',
    idempotent: true,
    summary: 'Add a user',
    body: z
      .object({
        name,
        role,
        password: password.nullable().default(null).describe('null: no logging in, only tokens'),
      })
      .strict(),
    reply: userView,
    status: 201,
  },
  getUser: {
    method: 'GET',
    path: '/users/:user',
    role: 'admin',
    versioned: true,
    summary: 'One user',
    params: userParams,
    reply: userView,
  },
  updateUser: {
    method: 'PATCH',
    path: '/users/:user',
    role: 'admin',
    versioned: true,
    summary: 'Give a user another role or password; a new password ends their sessions',
    params: userParams,
    body: z
      .object({ role, password: password.nullable() })
      .partial()
      .strict()
      .refine((changes) => Object.keys(changes).length > 0, 'nothing is to be changed'),
    reply: userView,
  },
  removeUser: {
    method: 'DELETE',
    path: '/users/:user',
    role: 'admin',
    summary: 'Remove a user with all sessions and tokens',
    params: userParams,
    reply: z.object({ removed: z.string(), tokensRevoked: z.array(z.string()) }),
  },
  listTokens: { method: 'GET', path: '/tokens', role: 'admin', summary: 'All tokens', reply: z.array(tokenView) },
  createToken: {
    method: 'POST',
    path: '/tokens',
    role: 'admin',
    summary: 'Make a token; it is shown in this answer and never again',
    body: z
      .object({
        name: name.describe('what it is for; unique'),
        role,
        user: z.string().min(1).max(100).nullable().default(null).describe('whose; null: it stands by itself'),
        expiresInMs: z.number().int().min(60_000).max(315_576_000_000).nullable().default(null),
      })
      .strict(),
    reply: tokenView.extend({ token: z.string().describe('the secret itself') }),
    status: 201,
  },
  revokeToken: {
    method: 'DELETE',
    path: '/tokens/:token',
    role: 'admin',
    summary: 'Revoke a token: from now on it opens nothing',
    params: z.object({ token: z.string().min(1).max(100).describe('id or name') }),
    reply: tokenView,
  },
  listAudit: {
    method: 'GET',
    path: '/audit',
    role: 'operator',
    summary: 'Who did what, to what, when and why, newest first',
    query: z
      .object({
        by: z.string().min(1).max(100).optional(),
        did: z.string().min(1).max(100).optional().describe('name of an operation'),
        to: z.string().min(1).max(200).optional().describe('e.g. "vm web1", or only "web1"'),
        outcome: z.string().min(1).max(100).optional().describe('`done`, `failed` for all that is not, or a code'),
        since: z.coerce.number().int().min(0).optional().describe('ms since the epoch'),
        until: z.coerce.number().int().min(0).optional().describe('ms since the epoch'),
        limit: z.coerce.number().int().min(1).max(1000).default(50),
        after,
      })
      .strict(),
    reply: z.array(auditView),
  },
} as const satisfies Record<string, Endpoint>;
