import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { debianEntries, readDeb822, readOneLine, writeEntries } from './sources.mjs';

const made = [];

/** A folder like /etc/apt with these files in it. */
function etcApt(files) {
  const folder = mkdtempSync(path.join(tmpdir(), 'drover-sources-'));
  made.push(folder);
  mkdirSync(path.join(folder, 'sources.list.d'));
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return folder;
}

afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true });
});

describe('the system’s apt sources', () => {
  test('a one-line entry keeps its options under their deb822 names', () => {
    const text =
      '# deb http://no/debian bookworm main\ndeb [arch=amd64,i386 signed-by=/k.gpg] http://m/debian bookworm main contrib # mine\n';
    expect(readOneLine(text)).toEqual([
      {
        uris: ['http://m/debian'],
        suites: ['bookworm'],
        components: ['main', 'contrib'],
        options: [
          ['Architectures', 'amd64 i386'],
          ['Signed-By', '/k.gpg'],
        ],
      },
    ]);
  });

  test('a deb822 entry keeps a key that is written out over several lines', () => {
    const text =
      'Types: deb deb-src\n# a comment\nURIs: http://m/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n';
    const [entry] = readDeb822(text);
    expect(entry.suites).toEqual(['trixie', 'trixie-updates']);
    expect(entry.options).toEqual([['Signed-By', '\n -----BEGIN\n .\n abc']]);
    expect(writeEntries([entry])).toContain('Signed-By: \n -----BEGIN\n .\n abc\n');
  });

  test('entries that are switched off, for sources only, or on a disc are not taken', () => {
    expect(readDeb822('Enabled: no\nTypes: deb\nURIs: http://m/debian\nSuites: trixie\nComponents: main\n')).toEqual(
      [],
    );
    expect(readDeb822('Types: deb-src\nURIs: http://m/debian\nSuites: trixie\nComponents: main\n')).toEqual([]);
    expect(readOneLine('deb cdrom:[Debian 12]/ bookworm main\ndeb-src http://m/debian bookworm main\n')).toEqual([]);
  });

  test('backports come from the mirror and with the key of the main archive, never from a third party', () => {
    const folder = etcApt({
      'sources.list':
        'deb https://apt.example.com bookworm main\ndeb https://download.example.com/linux/debian bookworm stable\n',
      'sources.list.d/debian.sources':
        'Types: deb\nURIs: http://mirror/debian/\nSuites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /k.gpg\n\n' +
        'Types: deb\nURIs: http://mirror/debian-security\nSuites: bookworm-security\nComponents: main\nSigned-By: /k.gpg\n',
    });
    const entries = debianEntries(folder, 'bookworm', true);
    expect(entries.map(({ uris, suites }) => `${uris.join(',')} ${suites.join(',')}`)).toEqual([
      'http://mirror/debian/ bookworm,bookworm-updates',
      'http://mirror/debian-security bookworm-security',
      'http://mirror/debian/ bookworm-backports',
    ]);
    expect(entries[2]?.options).toEqual([['Signed-By', '/k.gpg']]);
  });

  test('a machine with no entry for its release gives none', () => {
    expect(debianEntries(etcApt({ 'sources.list': 'deb http://m/debian trixie main\n' }), 'bookworm', true)).toEqual(
      [],
    );
  });
});
