// zsh and fish, for the tests of completion: Debian's, unpacked into .drover/shells beside whatever the system has; bash is everywhere.
// Nobody's login shell changes.

import path from 'node:path';
import { resolveDependency, unpacked, unpackPrivately } from './apt.mjs';
import { droverDir } from './run.mjs';

const privateDir = path.join(droverDir, 'shells');

/** Whether they are to be downloaded. */
export function missingShells() {
  return unpacked(privateDir) === undefined;
}

/** Needs an open private apt. What they need beside these, every Debian has. */
export async function downloadShells() {
  const pcre = resolveDependency('fish', /^libpcre2-32/);
  await unpackPrivately({ target: privateDir, packages: ['zsh', 'zsh-common', 'fish', 'fish-common', pcre] });
}
