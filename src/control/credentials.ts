/**
 * What a request proves itself with: a bearer token, or the cookie of a session; and where it came from. Not here: whose they
 * are (people.ts).
 *
 * A cookie is sent by a browser whoever made the page, so what it may do is only done for pages of this server: the browser
 * says so itself (Sec-Fetch-Site), or Origin names this host. A program that has a session and no browser sends
 * `drover-session: 1`, which no form can send and no other site's script may (it is never allowed by CORS).
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { Actor } from '../model/access.ts';
import { UserError } from '../model/failure.ts';
import { bootstrapActor, secretHash } from './people.ts';
import type { People } from './people.ts';

const cookieName = 'drover-session';
/** Set by a server that follows and passes a request on: where it came from, signed with the token that both servers have. */
export const passedOnHeader = 'drover-passed-on';

/** @throws UserError unauthorized; forbidden for a cookie that another site's page made the browser send */
export function actorOf(request: IncomingMessage, people: People, bootstrapHash: string): Actor {
  const { headers } = request;
  const bearer = /^Bearer (.+)$/i.exec(headers.authorization ?? '')?.[1];
  if (bearer !== undefined) {
    // Looked up by their hashes, so that neither content nor length tells by the time it takes.
    const actor = sameText(secretHash(bearer), bootstrapHash) ? bootstrapActor : people.ofToken(bearer);
    if (actor) return actor;
    throw new UserError(
      'unauthorized',
      'The bearer token is none of this server, or was revoked or has run out.',
      "An admin makes one with `drover token create`; the first is in the file `token` of the server's state directory.",
    );
  }
  const cookie = cookieIn(headers);
  if (cookie === undefined) {
    throw new UserError(
      'unauthorized',
      'This needs a bearer token or a session.',
      "Send `Authorization: Bearer TOKEN`, or log in; the first token is in the file `token` of the server's state directory.",
    );
  }
  const actor = people.ofSession(cookie);
  if (!actor) throw new UserError('unauthorized', 'The session is over.', 'Log in again.');
  const harmless = (request.method === 'GET' || request.method === 'HEAD') && headers.upgrade === undefined;
  if (!harmless && !isOwnPage(headers)) throw otherSite();
  return actor;
}

/** A page of another site must not log anybody in either. @throws UserError forbidden */
export function refuseOtherSites({ headers }: IncomingMessage): void {
  const fromPage = headers['sec-fetch-site'] !== undefined || headers.origin !== undefined;
  if (fromPage && !isOwnPage(headers)) throw otherSite();
}

function isOwnPage(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site'];
  if (site !== undefined) return site === 'same-origin';
  const { origin, host } = headers;
  if (origin !== undefined) return URL.canParse(origin) && new URL(origin).host === host;
  return headers['drover-session'] === '1';
}

function otherSite(): UserError {
  return new UserError(
    'forbidden',
    'A page of another site must not do this in your name.',
    'Use the dashboard of this server; a program with a session sends the header `drover-session: 1`.',
  );
}

function cookieIn(headers: IncomingHttpHeaders): string | undefined {
  const found = (headers.cookie ?? '').split(';').map((pair) => /^\s*([^=\s]+)=([\w-]+)\s*$/.exec(pair));
  return found.find((match) => match?.[1] === cookieName)?.[2];
}

/** The value of Set-Cookie. @param secret null: the session is over */
export function sessionCookie(request: IncomingMessage, secret: string | null, forMs: number): string {
  const { socket, headers } = request;
  // A proxy in front may end TLS. Who lies about it only makes the own cookie stricter.
  const overTls = (socket as Partial<TLSSocket>).encrypted === true || headers['x-forwarded-proto'] === 'https';
  const attributes = ['Path=/', 'HttpOnly', 'SameSite=Strict', ...(overTls ? ['Secure'] : [])];
  const age = secret === null ? 0 : Math.floor(forMs / 1000);
  return [`${cookieName}=${secret ?? ''}`, `Max-Age=${age}`, ...attributes].join('; ');
}

/** Where a request came from; through a server that follows, where it came to that one from. */
export function addressOf(request: IncomingMessage, key: string): string {
  const own = request.socket.remoteAddress ?? 'unknown';
  const passed = request.headers[passedOnHeader];
  if (typeof passed !== 'string') return own;
  const [address = '', signature = ''] = passed.split(' ');
  return sameText(signature, signatureOf(address, key)) ? address : own;
}

/** The value of the header for a request that is passed on. @param address where it came from */
export function passedOn(address = 'unknown', key: string): string {
  return `${address} ${signatureOf(address, key)}`;
}

function signatureOf(address: string, key: string): string {
  return createHmac('sha256', key).update(`passed on ${address}`).digest('hex');
}

function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
