// Reading apt's sources: which of the system's entries are Debian's own archive, in both formats (one line per source, and
// deb822 paragraphs). What is found is written as deb822 for an apt of our own; see apt.mjs.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** @typedef {{ uris: string[], suites: string[], components: string[], options: [string, string][] }} Entry */

/** one-line options whose deb822 name is not the same word with capitals */
const optionNames = { arch: 'Architectures', lang: 'Languages', target: 'Targets' };

/**
 * The system's entries for Debian's own archive of this release, and one for its backports where asked for.
 * @param {string} etcApt usually /etc/apt
 * @param {string} codename
 * @param {boolean} backports
 * @returns {Entry[]}
 */
export function debianEntries(etcApt, codename, backports) {
  const wanted = new Set(['', '-updates', '-security'].flatMap((part) => [`${codename}${part}`, `stable${part}`]));
  const entries = readAll(etcApt)
    .filter(isDebian)
    .map((entry) => ({ ...entry, components: ['main'], suites: entry.suites.filter((suite) => wanted.has(suite)) }))
    .filter((entry) => entry.suites.length > 0);
  if (!backports) return entries;
  const main = entries.find((entry) => entry.suites.includes(codename));
  return main === undefined ? entries : [...entries, { ...main, suites: [`${codename}-backports`] }];
}

/** @param {Entry[]} entries */
export function writeEntries(entries) {
  const paragraphs = entries.map((entry) => {
    const fields = [
      ['Types', 'deb'],
      ['URIs', entry.uris.join(' ')],
      ['Suites', entry.suites.join(' ')],
      ['Components', entry.components.join(' ')],
      // package lists only: no translations, no descriptions of desktop programs
      ['Targets', 'Packages'],
      ...entry.options,
    ];
    return fields.map(([name, value]) => `${name}: ${value}`).join('\n');
  });
  return `${paragraphs.join('\n\n')}\n`;
}

/**
 * Third parties also publish for "bookworm main", some under a path with "debian" in it. Debian's own archive
 * and its mirrors end in /debian or /debian-security, or are signed by Debian's keyring, or are a list of mirrors.
 * @param {Entry} entry
 */
function isDebian(entry) {
  if (!entry.components.includes('main')) return false;
  const signedBy = entry.options.find(([name]) => name === 'Signed-By')?.[1] ?? '';
  if (signedBy.includes('debian-archive')) return true;
  return entry.uris.some((uri) => /\/debian(-security)?\/?$/.test(uri) || /^mirror\+file:.*debian/.test(uri));
}

/** @returns {Entry[]} */
function readAll(etcApt) {
  const parts = path.join(etcApt, 'sources.list.d');
  const names = existsSync(parts) ? readdirSync(parts).sort() : [];
  const files = [path.join(etcApt, 'sources.list'), ...names.map((name) => path.join(parts, name))];
  return files.flatMap((file) => {
    if (!existsSync(file)) return [];
    if (file.endsWith('.sources')) return readDeb822(readFileSync(file, 'utf8'));
    return file.endsWith('.list') ? readOneLine(readFileSync(file, 'utf8')) : [];
  });
}

/** deb [signed-by=/k.gpg arch=amd64] http://host/debian bookworm main contrib @returns {Entry[]} */
export function readOneLine(text) {
  const entries = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (match === null || match[2].startsWith('cdrom:')) continue;
    const options = (match[1] ?? '')
      .split(/\s+/)
      .filter((option) => /^[\w-]+=/.test(option))
      .map((option) => {
        const [, name, value] = /^([\w-]+)=(.*)$/.exec(option) ?? [];
        return [
          optionNames[name] ?? name.replaceAll(/(^|-)[a-z]/g, (letter) => letter.toUpperCase()),
          value.replaceAll(',', ' '),
        ];
      })
      .filter(([name]) => name !== 'Targets');
    entries.push({ uris: [match[2]], suites: [match[3]], components: match[4].trim().split(/\s+/), options });
  }
  return entries;
}

/** @returns {Entry[]} */
export function readDeb822(text) {
  const entries = [];
  const withoutComments = text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n');
  for (const paragraph of withoutComments.split(/\n\s*\n/)) {
    const fields = new Map();
    let last;
    for (const line of paragraph.split('\n')) {
      const match = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (match) fields.set((last = match[1]), match[2].trim());
      // a continued field, such as a key written out in Signed-By
      else if (last !== undefined && /^\s/.test(line)) fields.set(last, `${fields.get(last)}\n${line}`);
    }
    const words = (name) => (fields.get(name) ?? '').split(/\s+/).filter((word) => word !== '');
    if (!words('Types').includes('deb') || /^(no|false|0)$/i.test(fields.get('Enabled') ?? '')) continue;
    const own = new Set(['Types', 'URIs', 'Suites', 'Components', 'Targets', 'Enabled', 'X-Repolib-Name']);
    const options = [...fields].filter(([name]) => !own.has(name));
    entries.push({ uris: words('URIs'), suites: words('Suites'), components: words('Components'), options });
  }
  return entries;
}
