/**
 * TLS of the API and the dashboard: certificate and key as they are in their files, read again when told to (SIGHUP), for servers
 * that listen as for those that begin to. Agents have a way of their own (runtime/channel.ts).
 */
import { readFileSync } from 'node:fs';
import type { Server } from 'node:https';
import { createSecureContext, getCACertificates } from 'node:tls';
import { UserError, messageOf } from '../model/failure.ts';

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  /** Who signs the certificates of the fleet's other servers; undefined: whom this machine trusts. */
  readonly ca: string | undefined;
}

interface Material {
  readonly cert: Buffer;
  readonly key: Buffer;
}

export class ServerTls {
  readonly #files: TlsFiles;
  readonly #servers = new Set<Server>();
  #material: Material;
  #trusted: string[] | undefined;

  /** @throws UserError invalid-input where the files do not belong together or cannot be read */
  constructor(files: TlsFiles) {
    this.#files = files;
    this.#material = read(files);
    if (files.ca !== undefined) this.#trusted = [text(files.ca, '--tls-ca').toString()];
  }

  get material(): Material {
    return this.#material;
  }

  /** Of those that other servers of the fleet are asked with. */
  get trusted(): string[] {
    this.#trusted ??= [...getCACertificates('default'), ...getCACertificates('system')];
    return this.#trusted;
  }

  /** It is given each new certificate; connections that are open go on with theirs. */
  follow(server: Server): void {
    this.#servers.add(server);
    server.once('close', () => this.#servers.delete(server));
  }

  /** What is wrong with the new files is thrown, and the old certificate stays. @throws UserError invalid-input */
  reload(): void {
    this.#material = read(this.#files);
    for (const server of this.#servers) server.setSecureContext(this.#material);
  }
}

function read({ cert, key }: TlsFiles): Material {
  const material = { cert: text(cert, '--tls-cert'), key: text(key, '--tls-key') };
  try {
    createSecureContext(material);
  } catch (error) {
    throw new UserError(
      'invalid-input',
      `${cert} and ${key} are no certificate with its key: ${messageOf(error)}.`,
      'Both are PEM: the certificate, with those between it and its root after it, and its private key without a password.',
      { cause: error },
    );
  }
  return material;
}

function text(file: string, option: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const says = `${file} (${option}) cannot be read: ${messageOf(error)}.`;
    throw new UserError('invalid-input', says, 'Name a file that the server may read.', { cause: error });
  }
}
