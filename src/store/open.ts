/** Which store a server uses, from what its command line says: its own SQLite file, or an etcd that several servers share. */
import { readFileSync } from 'node:fs';
import { UserError, messageOf } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { Log } from '../runtime/log.ts';
import { openEtcd } from './etcd.ts';
import type { EtcdTls } from './etcd-gateway.ts';
import { openSqlite } from './sqlite.ts';
import type { Store } from './store.ts';

export interface StoreOptions {
  /** etcd://HOST:PORT,HOST:PORT?prefix=/fleet/; without it the file is used. */
  readonly address?: string;
  readonly file: string;
  /** PEM files; all three or none. */
  readonly etcdCa?: string;
  readonly etcdCert?: string;
  readonly etcdKey?: string;
  readonly log: Log;
}

export interface OpenedStore {
  readonly store: Store;
  /** Whether other servers may be at work on it. */
  readonly shared: boolean;
}

/** @throws UserError for an address or files that are not as they should be, and as openSqlite does */
export function openStore({ address, file, log, ...files }: StoreOptions): OpenedStore {
  const tls = readTls(files);
  if (address === undefined) {
    if (tls === undefined) return { store: openSqlite(file), shared: false };
    throw new UserError(
      'invalid-input',
      'The --etcd files are for a store on etcd.',
      'Name it: --store etcd://HOST:2379.',
    );
  }
  const { members, prefix } = parseEtcdAddress(address);
  if (tls === undefined && members.some((member) => !isOwn(member.address))) {
    log.warn({ store: address }, 'the store is reached without TLS: whoever reaches etcd can change every record');
  }
  return { store: openEtcd({ members, prefix, log, ...(tls && { tls }) }), shared: true };
}

/** @throws UserError invalid-input */
export function parseEtcdAddress(text: string): { readonly members: Endpoint[]; readonly prefix: string } {
  const match = /^etcd:\/\/([^/?]+)(?:\?prefix=([!-~]+))?$/.exec(text);
  const members = match?.[1]?.split(',').map((each): Endpoint | undefined => {
    const found = /^(?:\[([0-9a-f:]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(each);
    const host = found?.[1] ?? found?.[2];
    const port = Number(found?.[3]);
    return host !== undefined && port > 0 && port <= 65_535 ? { address: host, port } : undefined;
  });
  const known = members?.filter((member) => member !== undefined);
  if (known === undefined || known.length !== members?.length) {
    throw new UserError(
      'invalid-input',
      `'${text}' is not the address of a store.`,
      'Write etcd://HOST:PORT,HOST:PORT,HOST:PORT, with ?prefix=/NAME/ where fleets share one etcd.',
    );
  }
  const prefix = match?.[2] ?? '/drover/';
  if (prefix.endsWith('/') && prefix.length > 1) return { members: known, prefix };
  throw new UserError('invalid-input', `The prefix '${prefix}' does not end in "/".`, 'Write ?prefix=/NAME/.');
}

function readTls({ etcdCa, etcdCert, etcdKey }: Omit<StoreOptions, 'address' | 'file' | 'log'>): EtcdTls | undefined {
  if (etcdCa === undefined && etcdCert === undefined && etcdKey === undefined) return undefined;
  if (etcdCa === undefined || etcdCert === undefined || etcdKey === undefined) {
    throw new UserError(
      'invalid-input',
      'TLS to etcd needs --etcd-ca, --etcd-cert and --etcd-key.',
      'Give all three, or none for an etcd without TLS.',
    );
  }
  return {
    ca: readPem(etcdCa, '--etcd-ca'),
    cert: readPem(etcdCert, '--etcd-cert'),
    key: readPem(etcdKey, '--etcd-key'),
  };
}

function readPem(file: string, option: string): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UserError(
      'invalid-input',
      `${option} ${file} cannot be read: ${messageOf(error)}.`,
      'Name a PEM file that this server may read.',
      { cause: error },
    );
  }
  if (text.includes('-----BEGIN ')) return text;
  throw new UserError('invalid-input', `${option} ${file} is no PEM file.`, 'It begins with -----BEGIN.');
}

function isOwn(address: string): boolean {
  return address === 'localhost' || address === '::1' || address.startsWith('127.');
}
