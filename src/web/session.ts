/**
 * Who is signed in: the one place that knows how. By name and password the server sets a cookie that no script can read; by a token
 * it is kept here, for this tab only or, where asked for, in this browser. Everything else asks for the client and for `signOut`.
 */
import { UserError, messageOf } from '../model/failure.ts';
import { createClient, type Client } from '../wire/client.ts';

const key = 'drover.token';

export type Session =
  | { readonly kind: 'asking' }
  | { readonly kind: 'signed-out'; readonly because: string | null }
  | SignedIn;

export interface SignedIn {
  readonly kind: 'signed-in';
  readonly client: Client;
}

export type Credentials =
  | { readonly kind: 'password'; readonly name: string; readonly password: string }
  | { readonly kind: 'token'; readonly token: string; readonly keep: boolean };

let current: Session = recalled();
const listeners = new Set<() => void>();
if (current.kind === 'asking') void askByCookie();

export function session(): Session {
  return current;
}

export function onSession(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Tries it before anything is kept. @throws UserError when the server refuses it or cannot be reached */
export async function signIn(credentials: Credentials): Promise<void> {
  if (credentials.kind === 'password') {
    const client = clientFor(null);
    await client.login({ body: { name: credentials.name, password: credentials.password } });
    return change({ kind: 'signed-in', client });
  }
  const token = credentials.token.trim();
  const client = clientFor(token);
  await client.getMe();
  (credentials.keep ? localStorage : sessionStorage).setItem(key, token);
  change({ kind: 'signed-in', client });
}

/** @param because shown above the form; null: the person asked for it */
export function signOut(because: string | null): void {
  const isByToken = (sessionStorage.getItem(key) ?? localStorage.getItem(key)) !== null;
  sessionStorage.removeItem(key);
  localStorage.removeItem(key);
  // A session that is over already, or a server that is away: there is nothing to be ended.
  if (!isByToken && because === null && current.kind === 'signed-in') current.client.logout().catch(() => {});
  change({ kind: 'signed-out', because });
}

function change(next: Session): void {
  current = next;
  for (const listener of listeners) listener();
}

/** Whether the browser holds a cookie is not seen from here: the server is asked. */
async function askByCookie(): Promise<void> {
  const client = clientFor(null);
  try {
    await client.getMe();
    change({ kind: 'signed-in', client });
  } catch (error) {
    const isRefused = error instanceof UserError && error.code === 'unauthorized';
    change({ kind: 'signed-out', because: isRefused ? null : messageOf(error) });
  }
}

/** From a link with #token=..., which is taken out of the address at once, or from the time before. */
function recalled(): Session {
  const given = /^#token=([\w.-]+)$/.exec(location.hash)?.[1];
  if (given !== undefined) {
    history.replaceState(null, '', location.pathname + location.search);
    sessionStorage.setItem(key, given);
  }
  const token = given ?? sessionStorage.getItem(key) ?? localStorage.getItem(key);
  if (token === null) return { kind: 'asking' };
  try {
    return { kind: 'signed-in', client: clientFor(token) };
  } catch {
    return { kind: 'signed-out', because: 'What was kept as the token is none.' };
  }
}

/** @param token null: by the cookie */
function clientFor(token: string | null): Client {
  if (token === '') throw new UserError('invalid-input', 'There is no token.', 'Paste the one you were given.');
  return createClient({
    server: location.origin,
    fetch: (...args) => fetch(...args),
    ...(token === null ? {} : { token }),
  });
}
