// etcd, for the tests of the store on real members and for labs with several servers: Debian's, unpacked into .drover/etcd where
// the system has none, so that no service is installed and none is started. src/lab/etcd.ts finds it there.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { unpacked, unpackPrivately } from './apt.mjs';
import { droverDir } from './run.mjs';

const privateDir = path.join(droverDir, 'etcd');

/** Whether it is to be downloaded. */
export function missingEtcd() {
  return !existsSync('/usr/bin/etcd') && unpacked(privateDir) === undefined;
}

/** Needs an open private apt. Nothing but the C library is needed to run it. */
export async function downloadEtcd() {
  await unpackPrivately({ target: privateDir, packages: ['etcd-server'] });
}
