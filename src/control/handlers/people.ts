/** Users, tokens, sessions and the audit log over the API. */
import type { Actor, AuditRecord, TokenRecord, UserRecord } from '../../model/access.ts';
import { recordKey } from '../../store/records.ts';
import type { AuditView, MeView, TokenView, UserView } from '../../wire/people.ts';
import type { Call, Handler } from '../handler.ts';
import { pageOf } from '../pages.ts';
import { sessionMs } from '../people.ts';
import { expectVersion, tellVersion } from '../versions.ts';

export const login: Handler<'login'> = async ({ body }, { plane, address, answer }) => {
  const { actor, secret } = await plane.people.login(body.name, body.password, address);
  answer.session(secret, sessionMs);
  return meView(actor);
};

export const logout: Handler<'logout'> = async (_, { plane, actor, answer }) => {
  await plane.people.logout(actor);
  answer.session(null, 0);
  return { loggedOut: actor.name };
};

export const getMe: Handler<'getMe'> = (_, { actor }) => meView(actor);

export const changeMyPassword: Handler<'changeMyPassword'> = async ({ body }, { plane, actor, address }) => {
  await plane.people.changePassword(actor, body, address);
  return meView(actor);
};

export const listUsers: Handler<'listUsers'> = (_, { plane }) =>
  [...plane.fleet.plain('user').values()]
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((user) => userView(plane, user));

export const createUser: Handler<'createUser'> = async ({ body }, { plane, actor, request }) =>
  userView(plane, await plane.people.add(body, actor.name, request));

export const getUser: Handler<'getUser'> = ({ params }, call) => {
  const user = call.plane.people.find(params.user);
  tellVersion(call, versionOfUser(call, user));
  return userView(call.plane, user);
};

export const updateUser: Handler<'updateUser'> = async ({ params, body }, call) => {
  const { plane } = call;
  const user = await plane.people.update(params.user, body, (now) => expectVersion(call, versionOfUser(call, now)));
  tellVersion(call, versionOfUser(call, user));
  return userView(plane, user);
};

export const removeUser: Handler<'removeUser'> = async ({ params }, { plane }) => ({
  removed: params.user,
  tokensRevoked: await plane.people.remove(params.user),
});

export const listTokens: Handler<'listTokens'> = (_, { plane }) =>
  [...plane.fleet.plain('token').values()]
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((token) => tokenView(plane, token));

export const createToken: Handler<'createToken'> = async ({ body }, { plane, actor }) => {
  const { token, secret } = await plane.people.makeToken(body, actor.name);
  return { ...tokenView(plane, token), token: secret };
};

export const revokeToken: Handler<'revokeToken'> = async ({ params }, { plane }) =>
  tokenView(plane, await plane.people.revoke(params.token));

export const listAudit: Handler<'listAudit'> = ({ query }, call) => {
  const { by, did, to, outcome, since = 0, until = Number.POSITIVE_INFINITY } = query;
  const wanted = (entry: AuditRecord): boolean =>
    (by === undefined || entry.by === by) &&
    (did === undefined || entry.did === did) &&
    (to === undefined || entry.to === to || entry.to?.split(' ')[1] === to) &&
    (outcome === undefined || (outcome === 'failed' ? entry.outcome !== 'done' : entry.outcome === outcome)) &&
    entry.at >= since &&
    entry.at <= until;
  const entries = [...call.plane.fleet.plain('audit').values()].toReversed().filter(wanted);
  return pageOf(call, entries, query, ({ id }) => id, 'descending').map(auditView);
};

function versionOfUser({ plane }: Call, { name }: UserRecord): string {
  return String(plane.fleet.changedAt(recordKey.user(name)));
}

function auditView(entry: AuditRecord): AuditView {
  const { id, at, by, via, token, address, did, to, request, because, outcome, says } = entry;
  return { id, at, by, via, token, address, did, to, request, because, outcome, says };
}

function meView({ name, role, via, token, user, expiresAt }: Actor): MeView {
  return { name, role, via, token, user, expiresAt };
}

function userView({ people }: Call['plane'], { name, role, password, createdAt, createdBy }: UserRecord): UserView {
  return { name, role, canLogIn: password !== null, ...people.counts(name), createdAt, createdBy };
}

function tokenView({ people }: Call['plane'], token: TokenRecord): TokenView {
  const { id, name, user, createdAt, createdBy, expiresAt } = token;
  return { id, name, user, role: people.roleOf(token) ?? token.role, createdAt, createdBy, expiresAt };
}
