/** Chromium for the tests of the dashboard: the system's, or the one that the set-up unpacks. Not here: what is looked at. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium, type Browser } from 'playwright-core';

const repository = join(import.meta.dirname, '..', '..');
const droverDir = join(repository, '.drover');
const unpackedDir = join(droverDir, 'chromium');
export const screensDir = join(droverDir, 'test', 'screens');

/** Undefined: there is none here, and tests that need one are left out. */
export function findChromium(): string | undefined {
  return [join(unpackedDir, 'usr/lib/chromium/chromium'), '/usr/bin/chromium'].find((path) => existsSync(path));
}

export async function openBrowser(): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) throw new Error('there is no Chromium: npm run setup unpacks one');
  return chromium.launch({
    executablePath,
    args: ['--disable-gpu', '--font-render-hinting=none', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
    env: { ...process.env, ...surroundings(executablePath) },
  });
}

/** Libraries and fonts of the unpacked one. */
function surroundings(executablePath: string): Record<string, string> {
  if (!executablePath.startsWith(unpackedDir)) return {};
  const libraries = readdirSync(join(unpackedDir, 'usr/lib'))
    .filter((name) => name.endsWith('-linux-gnu'))
    .flatMap((name) => {
      const dir = join(unpackedDir, 'usr/lib', name);
      return [dir, join(dir, 'pulseaudio')];
    });
  mkdirSync(join(droverDir, 'test'), { recursive: true });
  const config = join(droverDir, 'test', 'fonts.conf');
  writeFileSync(
    config,
    `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd"><fontconfig>
<dir>${join(unpackedDir, 'usr/share/fonts')}</dir><dir>/usr/share/fonts</dir>
<cachedir>${join(droverDir, 'test', 'fontconfig')}</cachedir></fontconfig>\n`,
  );
  return { LD_LIBRARY_PATH: libraries.join(':'), FONTCONFIG_FILE: config };
}
