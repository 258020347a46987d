/** Whose certificates are believed where the server speaks TLS: a file's, or those that Node and this machine trust. For the whole process. */
import { readFileSync } from 'node:fs';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { UserError, messageOf } from '../model/failure.ts';
import type { Connection } from './connection.ts';

/** @throws UserError invalid-input for a file that cannot be read or holds no certificate */
export function trustFor({ server, ca }: Pick<Connection, 'server' | 'ca'>): void {
  if (ca === undefined && !server.includes('https:')) return;
  try {
    setDefaultCACertificates(
      ca === undefined ? [...getCACertificates('default'), ...getCACertificates('system')] : [readFileSync(ca, 'utf8')],
    );
  } catch (error) {
    throw new UserError(
      'invalid-input',
      `${ca ?? 'What this machine trusts'} cannot be used as certificates: ${messageOf(error)}.`,
      'Name a PEM file with --ca or DROVER_CA.',
      { cause: error },
    );
  }
}
