/**
 * A BMC that speaks Redfish (DMTF DSP0266, schema ComputerSystem): the power state is read from the system, and changed by its
 * action #ComputerSystem.Reset at the address that the system names.
 *
 * Every request signs in with Basic authentication, which the standard requires of every service; where it was switched off, with
 * a session that is ended again. Nothing is sent to any other address than the configured one. Not here: reading back (power.ts).
 */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { z } from 'zod';
import { messageOf } from '../../model/failure.ts';
import type { PowerSpec } from '../../model/host.ts';
import { readPassword } from './password.ts';
import { OrderRefused, type Bmc, type PowerReading } from './power.ts';

const maxReplyBytes = 1024 * 1024;
const sessions = '/redfish/v1/SessionService/Sessions';

/** What is read of a ComputerSystem. Services say much more. */
const computerSystem = z.object({
  PowerState: z.string().nullish(),
  Links: z.object({ Chassis: z.array(z.object({ '@odata.id': z.string() })).optional() }).optional(),
  Actions: z
    .object({
      '#ComputerSystem.Reset': z
        .object({ target: z.string(), 'ResetType@Redfish.AllowableValues': z.array(z.string()).optional() })
        .optional(),
    })
    .optional(),
});
const link = z.object({ '@odata.id': z.string() });
const chassisOf = z.object({ EnvironmentMetrics: link.optional(), Power: link.optional() });
const environmentMetrics = z.object({ PowerWatts: z.object({ Reading: z.number() }) });
const powerOf = z.object({ PowerControl: z.array(z.object({ PowerConsumedWatts: z.number().nullish() })) });
const errorReply = z.object({
  error: z.object({
    message: z.string().optional(),
    '@Message.ExtendedInfo': z.array(z.object({ Message: z.string().optional() })).optional(),
  }),
});

/** Reset types that do what is wanted, the first that the service offers. `off` is never a graceful one: it may hang for ever. */
const resetTypes = {
  off: ['ForceOff'],
  on: ['On', 'ForceOn'],
  'shut-down': ['GracefulShutdown', 'PushPowerButton'],
} as const;

type RedfishSpec = Extract<PowerSpec, { kind: 'redfish' }>;

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

type SignIn = Readonly<Record<string, string>>;

export function redfishBmc(spec: RedfishSpec): Bmc {
  const system = new URL(spec.url);
  let by: 'basic' | 'session' = 'basic';

  const send = async (
    method: string,
    path: string,
    signal: AbortSignal,
    signIn: SignIn,
    body?: object,
  ): Promise<Reply> => {
    const url = new URL(path, system);
    if (url.origin !== system.origin) throw new OrderRefused(`it refers to ${url.origin}, which nobody configured`);
    return exchange(url, {
      method,
      signal,
      headers: { ...signIn, accept: 'application/json' },
      body,
      trust: trustOf(spec),
    });
  };

  /** Signs in the way that works here, and out again. */
  const signedIn = async <T>(signal: AbortSignal, fn: (signIn: SignIn) => Promise<T | 'unauthorized'>): Promise<T> => {
    const password = await readPassword(spec.passwordFile).catch((error: unknown) => {
      throw new OrderRefused(messageOf(error), { cause: error });
    });
    if (by === 'basic') {
      const token = Buffer.from(`${spec.user}:${password}`).toString('base64');
      const result = await fn({ authorization: `Basic ${token}` });
      if (result !== 'unauthorized') return result;
    }
    const login = await send('POST', sessions, signal, {}, { UserName: spec.user, Password: password });
    const token = login.headers['x-auth-token'];
    if (login.status >= 400 || typeof token !== 'string') {
      throw new OrderRefused(`it does not let ${spec.user} in: ${wordsOf(login)}`);
    }
    try {
      const result = await fn({ 'x-auth-token': token });
      if (result === 'unauthorized') throw new OrderRefused(`${spec.user} may not do that there`);
      by = 'session';
      return result;
    } finally {
      const { location } = login.headers;
      // A session that is left open ends by itself; BMCs have few of them, so it is worth the attempt.
      if (typeof location === 'string')
        await send('DELETE', location, signal, { 'x-auth-token': token }).catch(() => undefined);
    }
  };

  /** @returns what it says under this address; undefined: nothing that can be read */
  const readAt = async (path: string, signal: AbortSignal, signIn: SignIn): Promise<unknown> => {
    const reply = await send('GET', path, signal, signIn);
    return reply.status === 200 ? parseJson(reply.body) : undefined;
  };

  /** By the newer way, then by the older one: both stand at the machine that the system is in. */
  const readWatts = async (signal: AbortSignal, signIn: SignIn): Promise<number | null | 'unauthorized'> => {
    const read = await readSystem(signal, signIn);
    if (read === 'unauthorized') return read;
    const chassisAt = read.Links?.Chassis?.[0]?.['@odata.id'];
    const chassis = chassisAt === undefined ? undefined : chassisOf.safeParse(await readAt(chassisAt, signal, signIn));
    if (!chassis?.success) return null;
    const { EnvironmentMetrics: newer, Power: older } = chassis.data;
    if (newer) {
      const metrics = environmentMetrics.safeParse(await readAt(newer['@odata.id'], signal, signIn));
      if (metrics.success) return metrics.data.PowerWatts.Reading;
    }
    if (!older) return null;
    const power = powerOf.safeParse(await readAt(older['@odata.id'], signal, signIn));
    return power.success ? (power.data.PowerControl[0]?.PowerConsumedWatts ?? null) : null;
  };

  const readSystem = async (signal: AbortSignal, signIn: SignIn) => {
    const reply = await send('GET', `${system.pathname}${system.search}`, signal, signIn);
    if (reply.status === 401) return 'unauthorized';
    if (reply.status === 403) throw new OrderRefused(`${spec.user} may not read it: ${wordsOf(reply)}`);
    if (reply.status !== 200) throw new Error(`${spec.url} answers ${wordsOf(reply)}`);
    const parsed = computerSystem.safeParse(parseJson(reply.body));
    if (!parsed.success) throw new Error(`${spec.url} is no Redfish ComputerSystem`);
    return parsed.data;
  };

  return {
    read: (signal) =>
      signedIn(signal, async (signIn) => {
        const read = await readSystem(signal, signIn);
        return read === 'unauthorized' ? read : readingOf(read.PowerState);
      }),
    watts: (signal) => signedIn(signal, (signIn) => readWatts(signal, signIn)),
    order: (wanted, signal) =>
      signedIn(signal, async (signIn) => {
        const read = await readSystem(signal, signIn);
        if (read === 'unauthorized') return read;
        const reset = read.Actions?.['#ComputerSystem.Reset'];
        if (reset === undefined) throw new OrderRefused(`${spec.url} offers no reset`);
        const offered = reset['ResetType@Redfish.AllowableValues'];
        const type = resetTypes[wanted].find((each) => offered?.includes(each) ?? true);
        if (type === undefined) {
          throw new OrderRefused(`it offers no ${resetTypes[wanted].join(' or ')}, only ${offered?.join(', ')}`);
        }
        const reply = await send('POST', reset.target, signal, signIn, { ResetType: type });
        if (reply.status === 401) return 'unauthorized';
        if (reply.status < 300) return;
        const says = `${type} was answered ${wordsOf(reply)}`;
        // 400 and 403 stay as they are; 409, 429 and 5xx may be different in a moment.
        if ([400, 403, 404, 405].includes(reply.status)) throw new OrderRefused(says);
        throw new Error(says);
      }),
  };
}

function readingOf(state: string | null | undefined): PowerReading {
  if (state === 'On') return { state: 'on' };
  if (state === 'Off') return { state: 'off' };
  return { state: 'unknown', says: state ? `it is ${state}` : 'it names no power state' };
}

interface Trust {
  readonly ca: string | undefined;
  /** Certificates that were handed to us as a file are believed whatever name they carry: BMCs make their own. */
  readonly pinned: ReadonlySet<string>;
}

function trustOf({ caFile }: RedfishSpec): Trust {
  if (caFile === null) return { ca: undefined, pinned: new Set() };
  try {
    const ca = readFileSync(caFile, 'utf8');
    const each = ca.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    return { ca, pinned: new Set(each.map((pem) => new X509Certificate(pem).fingerprint256)) };
  } catch (error) {
    throw new OrderRefused(`the certificate file cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

interface Exchange {
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: object | undefined;
  readonly signal: AbortSignal;
  readonly trust: Trust;
}

/** One request, one reply; redirects are not followed. */
function exchange(url: URL, { method, headers, body, signal, trust }: Exchange): Promise<Reply> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const more =
    text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(new Error(`${url.host}: ${error.message}`, { cause: error }));
    const options = {
      method,
      headers: { ...headers, ...more },
      signal,
      agent: false,
      ...(trust.ca !== undefined && { ca: trust.ca }),
      checkServerIdentity: (name: string, certificate: PeerCertificate) =>
        trust.pinned.has(certificate.fingerprint256) ? undefined : checkServerIdentity(name, certificate),
    } as const;
    const asked = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, options, (answer) => {
      let received = '';
      answer.setEncoding('utf8');
      answer.on('data', (part: string) => {
        received += part;
        if (received.length > maxReplyBytes) answer.destroy(new Error('its answer is too long'));
      });
      answer.on('error', fail);
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: received }));
    });
    asked.on('error', fail);
    asked.end(text);
  });
}

function wordsOf({ status, body }: Reply): string {
  const parsed = errorReply.safeParse(parseJson(body));
  const { error } = parsed.success ? parsed.data : {};
  const words = error?.['@Message.ExtendedInfo']?.[0]?.Message ?? error?.message;
  return words === undefined ? `${status}` : `${status}: ${words.slice(0, 300)}`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
