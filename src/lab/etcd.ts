/**
 * An etcd of several members on one machine: which program, certificates that only it and its clients hold, and the command
 * line of each member. For labs with several servers and for the tests of the store. Starting the members is the caller's
 * business.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import { run } from './exec.ts';

const clientPort = 2379;
const memberPort = 2380;
/** What watchers may be behind; older history is dropped by etcd itself, which otherwise keeps everything. */
const keptRevisions = 10_000;
const validDays = 3_650;

/** @throws UserError unavailable when there is none */
export function locateEtcd(repoRoot: string): string {
  const places = [join(repoRoot, '.drover/etcd/usr/bin/etcd'), '/usr/bin/etcd'];
  const found = places.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new UserError('unavailable', `There is no etcd: looked for ${places.join(' and ')}.`, 'Run: npm run setup');
}

/** Files for mutual TLS; one certificate for all, because the members are one program on one machine. */
export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/**
 * Makes an own authority and a certificate for these addresses with openssl, unless they are there.
 * `clientAuth` too: etcd's JSON gateway dials etcd itself, with the server's certificate.
 */
export async function makeCertificates(dir: string, addresses: readonly string[]): Promise<Certificates> {
  const files = { ca: join(dir, 'ca.pem'), cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
  if (existsSync(files.cert)) return files;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const caKey = join(dir, 'ca-key.pem');
  const extensions = join(dir, 'extensions');
  const request = join(dir, 'request.pem');
  // Members also check where another one connects from, and on the loopback network that is 127.0.0.1.
  const names = ['127.0.0.1', ...addresses].map((address) => `IP:${address}`).join(',');
  writeFileSync(extensions, `extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=${names}\n`);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const days = String(validDays);
  const authority = ['-keyout', caKey, '-out', files.ca, '-subj', '/CN=drover-etcd-ca', '-days', days];
  await run('openssl', ['req', '-x509', ...newKey, ...authority]);
  await run('openssl', ['req', ...newKey, '-keyout', files.key, '-out', request, '-subj', '/CN=drover-etcd']);
  const signed = ['-CA', files.ca, '-CAkey', caKey, '-CAcreateserial', '-days', days, '-extfile', extensions];
  await run('openssl', ['x509', '-req', '-in', request, ...signed, '-out', files.cert]);
  return files;
}

export interface Member {
  readonly name: string;
  /** Where clients reach it. */
  readonly endpoint: Endpoint;
  readonly args: readonly string[];
}

/** One member per address, all of one new cluster. `data`: where a member keeps what it knows. */
export function etcdMembers(addresses: readonly string[], tls: Certificates, data: (name: string) => string): Member[] {
  const names = addresses.map((_, i) => `etcd${i + 1}`);
  const peers = addresses.map((address, i) => `${names[i]}=https://${address}:${memberPort}`);
  return addresses.map((address, i) => {
    const name = names[i] ?? '';
    const client = `https://${address}:${clientPort}`;
    const peer = `https://${address}:${memberPort}`;
    const flags = {
      name,
      'listen-client-urls': client,
      'advertise-client-urls': client,
      'listen-peer-urls': peer,
      'initial-advertise-peer-urls': peer,
      'initial-cluster': peers.join(','),
      'initial-cluster-token': 'drover',
      'trusted-ca-file': tls.ca,
      'cert-file': tls.cert,
      'key-file': tls.key,
      'peer-trusted-ca-file': tls.ca,
      'peer-cert-file': tls.cert,
      'peer-key-file': tls.key,
      'auto-compaction-mode': 'revision',
      'auto-compaction-retention': String(keptRevisions),
      logger: 'zap',
      'log-level': 'info',
      'log-outputs': 'stdout',
    };
    const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
    // Last: by it the lab knows its children again.
    args.push('--client-cert-auth', '--peer-client-cert-auth', '--data-dir', data(name));
    return { name, endpoint: { address, port: clientPort }, args };
  });
}
