// Chromium, for the tests of the dashboard: the system's where there is one, else Debian's, unpacked into .drover/chromium with the
// libraries and the fonts that this machine lacks. Nothing is installed, so this needs no root. test/web/browser.ts starts it from there.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { neededFor, unpacked, unpackPrivately } from './apt.mjs';
import { droverDir } from './run.mjs';

const privateDir = path.join(droverDir, 'chromium');
/** what the pages are drawn with in screenshots, whatever the machine has */
const fonts = ['fonts-inter', 'fonts-dejavu-core', 'fontconfig-config'];

/** Whether it is to be downloaded. */
export function missingChromium() {
  return !existsSync('/usr/bin/chromium') && unpacked(privateDir) === undefined;
}

/** Needs an open private apt. */
export async function downloadChromium() {
  await unpackPrivately({ target: privateDir, packages: [...new Set([...neededFor('chromium'), ...fonts])] });
}
