/**
 * Where the server is, or the several of one fleet, and with which token: flags, then the environment, then ~/.config/drover/cli.json, then a lab that is
 * up, then this machine's own server. A token is never sent to another server than the one it was kept for, unless a flag or
 * the environment says so.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { UserError } from '../model/failure.ts';
import type { Surroundings } from './surroundings.ts';

export interface Connection {
  /** Several have commas between them. */
  readonly server: string;
  readonly token: string;
  /** Who said so, for errors: "DROVER_SERVER", a file. */
  readonly saidBy: string;
  /** File of the certificates that may sign the server's; absent: those that this machine trusts. */
  readonly ca?: string;
}

export interface ConnectionFlags {
  readonly server?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
}

type Place = Pick<Surroundings, 'env' | 'cwd' | 'home' | 'repoRoot'>;

const ownServer = 'http://127.0.0.1:7070';
const ownTokenFile = '/var/lib/drover/server/token';

/** @throws UserError `unavailable` when nothing names a server or a token is missing; `invalid-input` for a broken file */
export function findConnection(flags: ConnectionFlags, place: Place): Connection {
  const ca = flags.ca ?? (place.env['DROVER_CA'] || undefined);
  const found = findServer(flags, place);
  return ca === undefined ? found : { ...found, ca: resolve(place.cwd, ca) };
}

function findServer(flags: ConnectionFlags, place: Place): Connection {
  const { env, cwd } = place;
  const token = flags.tokenFile
    ? readToken(resolve(cwd, flags.tokenFile), '--token-file')
    : env['DROVER_TOKEN'] ||
      (env['DROVER_TOKEN_FILE'] ? readToken(resolve(cwd, env['DROVER_TOKEN_FILE']), 'DROVER_TOKEN_FILE') : undefined);
  const named = flags.server
    ? { server: flags.server, saidBy: '--server' }
    : env['DROVER_SERVER']
      ? { server: env['DROVER_SERVER'], saidBy: 'DROVER_SERVER' }
      : undefined;
  if (named && token !== undefined) return { ...named, token };

  for (const file of knownFiles(place)) {
    const known = readConnectionFile(file);
    if (!known || (named && !sameServer(known.server, named.server))) continue;
    return {
      server: named?.server ?? known.server,
      token: token ?? readToken(known.tokenFile, file),
      saidBy: named?.saidBy ?? file,
      ...(known.ca !== undefined && { ca: known.ca }),
    };
  }

  if (!named || sameServer(ownServer, named.server)) {
    const own = token ?? tryRead(ownTokenFile)?.trim();
    if (own) return { server: ownServer, token: own, saidBy: named?.saidBy ?? 'the default' };
  }
  if (named) {
    throw new UserError(
      'unavailable',
      `There is no token for the server ${named.server}.`,
      "Name the file that holds it with --token-file or DROVER_TOKEN_FILE; the server keeps it as 'token' in its state directory.",
    );
  }
  throw new UserError(
    'unavailable',
    `No server is known: nothing names one, no lab is up, and ${ownTokenFile} cannot be read.`,
    'Start one with `drover server` or `drover lab up`, or name one with --server and --token-file.',
  );
}

function knownFiles({ env, home, repoRoot }: Place): string[] {
  return [
    join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'drover', 'cli.json'),
    join(repoRoot, '.drover', 'lab', 'current.json'),
  ];
}

function readConnectionFile(file: string): { server: string; tokenFile: string; ca?: string } | undefined {
  const text = tryRead(file);
  if (text === undefined) return undefined;
  const broken = (cause?: unknown): UserError =>
    new UserError(
      'invalid-input',
      `${file} does not say how to reach the server.`,
      'It holds {"server": "http://HOST:PORT", "tokenFile": "PATH"}, and "ca" for a CA of your own; mend or remove it.',
      { cause },
    );
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw broken(error);
  }
  if (typeof content !== 'object' || content === null) throw broken();
  const { server, tokenFile, ca } = content as Record<string, unknown>;
  if (typeof server !== 'string' || typeof tokenFile !== 'string') throw broken();
  if (ca !== undefined && typeof ca !== 'string') throw broken();
  const at = (path: string): string => resolve(dirname(file), path);
  return { server, tokenFile: at(tokenFile), ...(ca !== undefined && { ca: at(ca) }) };
}

function readToken(file: string, saidBy: string): string {
  let token: string;
  try {
    token = readFileSync(file, 'utf8').trim();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    throw new UserError(
      'unavailable',
      `The token file ${file} (from ${saidBy}) cannot be read${code ? `: ${code}` : ''}.`,
      code === 'EACCES' ? 'Run it as the user who may read it.' : 'Name the right file with --token-file.',
      { cause },
    );
  }
  if (token === '') {
    throw new UserError('unavailable', `The token file ${file} (from ${saidBy}) is empty.`, 'Name the right file.');
  }
  return token;
}

function tryRead(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** Whether every server that is asked for is among the known ones. */
function sameServer(known: string, asked: string): boolean {
  const hrefs = (list: string) => list.split(',').map((each) => (URL.canParse(each) ? new URL(each).href : undefined));
  const among = hrefs(known);
  return hrefs(asked).every((href) => href !== undefined && among.includes(href));
}
