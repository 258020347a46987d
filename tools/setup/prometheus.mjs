// Prometheus and promtool, for the tests of metrics, alert rules and dashboard: Debian's, unpacked into .drover/prometheus where the
// system has none, so that no service is installed and none is started.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { unpacked, unpackPrivately } from './apt.mjs';
import { droverDir } from './run.mjs';

const privateDir = path.join(droverDir, 'prometheus');

/** Whether it is to be downloaded. */
export function missingPrometheus() {
  return !existsSync('/usr/bin/prometheus') && unpacked(privateDir) === undefined;
}

/** Needs an open private apt. Its dependencies are its pages' scripts; to run it, the C library is enough. */
export async function downloadPrometheus() {
  await unpackPrivately({ target: privateDir, packages: ['prometheus'] });
}
