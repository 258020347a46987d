import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../runtime/log.ts';
import { openStore, parseEtcdAddress } from './open.ts';

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'drover-open-'))));
afterEach(() => rmSync(directory, { recursive: true }));

describe('the address of a store', () => {
  test('names its members by name or address, and a prefix where one is given', () => {
    expect(parseEtcdAddress('etcd://a:2379,10.0.0.2:1,[fe80::1]:2379?prefix=/lab/')).toEqual({
      members: [
        { address: 'a', port: 2379 },
        { address: '10.0.0.2', port: 1 },
        { address: 'fe80::1', port: 2379 },
      ],
      prefix: '/lab/',
    });
    expect(parseEtcdAddress('etcd://a:2379').prefix).toBe('/drover/');
  });

  test('that is none is refused with how to write one', () => {
    for (const text of [
      'a:2379',
      'http://a:2379',
      'etcd://',
      'etcd://a',
      'etcd://a:0',
      'etcd://a:1,',
      'etcd://a:1?x=1',
    ]) {
      expect(() => parseEtcdAddress(text), text).toThrow(expect.objectContaining({ code: 'invalid-input' }));
    }
    expect(() => parseEtcdAddress('etcd://a:1?prefix=/lab')).toThrow(/prefix/);
  });
});

describe('a store', () => {
  test('without an address is a file that no other server shares', async () => {
    const { store, shared } = openStore({ file: join(directory, 'store.db'), log: silentLog });
    expect(shared).toBe(false);
    await store.close();
  });

  test('on etcd with a part of its TLS files, or with files that are none, is refused', () => {
    const pem = join(directory, 'x.pem');
    writeFileSync(pem, 'no certificate');
    const options = { address: 'etcd://a:1', file: join(directory, 'store.db'), log: silentLog };
    const refused = expect.objectContaining({ code: 'invalid-input', hint: expect.any(String) });
    expect(() => openStore({ ...options, etcdCa: pem })).toThrow(refused);
    expect(() => openStore({ ...options, etcdCa: pem, etcdCert: pem, etcdKey: pem })).toThrow(/no PEM file/);
    const absent = join(directory, 'absent');
    expect(() => openStore({ ...options, etcdCa: absent, etcdCert: pem, etcdKey: pem })).toThrow(/cannot be read/);
  });
});
