// Debian's packages, in two ways: installed into the system (needs root), and downloaded and unpacked into a folder of ours
// (needs nobody). The second uses apt with lists, cache and sources of its own, so it neither needs nor
// changes the system's; mirror and keys are those of the system's own Debian entries.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { asRoot } from './host.mjs';
import { ask, command, droverDir, SetupError } from './run.mjs';
import { debianEntries, writeEntries } from './sources.mjs';

const minuteMs = 60_000;
const aptDir = path.join(droverDir, 'apt');
const aptConf = path.join(aptDir, 'apt.conf');

/** Those of `names` that are not properly installed. */
export function notInstalled(names) {
  const result = ask('sh', [
    '-c',
    'dpkg-query -W -f=\'${Package} ${db:Status-Abbrev}\\n\' "$@" 2>/dev/null; true',
    'sh',
    ...names,
  ]);
  const installed = new Set();
  for (const line of (result ?? '').split('\n')) {
    const [name, status] = line.split(' ');
    if (status === 'ii' || status === 'hi') installed.add(name);
  }
  return names.filter((name) => !installed.has(name));
}

/** The one command a person runs where we cannot become root. */
export function installCommand(names) {
  return asRoot(`apt-get install -y --no-install-recommends ${names.join(' ')}`);
}

/**
 * Installs packages from the system's own sources.
 * @param {string[]} becomeRoot
 * @param {string[]} names
 */
export async function install(becomeRoot, names) {
  const apt = [...becomeRoot, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-o', 'DPkg::Lock::Timeout=300'];
  const shielded = { deadlineMs: 30 * minuteMs, shield: true };
  const update = () =>
    command([...apt, 'update'], { what: 'Reading the package lists (apt-get update)', ...shielded }).catch((error) => {
      // One unreachable third-party source must not stop us; if it matters, the installation says so.
      console.log(`    apt-get update complained; going on. (${error.message.split('\n').at(-1)?.trim()})`);
    });
  if (existsSync('/var/lib/dpkg/updates') && readdirSync('/var/lib/dpkg/updates').length > 0) {
    const repair = [...becomeRoot, 'env', 'DEBIAN_FRONTEND=noninteractive', 'dpkg', '--configure', '-a'];
    await command(repair, { what: 'Finishing an interrupted installation (dpkg --configure -a)', ...shielded });
  }
  const argv = [...apt, 'install', '-y', '--no-install-recommends', ...names];
  const hasLists = readdirSync('/var/lib/apt/lists').some((file) => /_Packages(\.\w+)?$/.test(file));
  if (!hasLists) await update();
  try {
    await command(argv, { what: 'Installing packages', ...shielded });
  } catch (error) {
    if (!hasLists) throw error;
    await update();
    await command(argv, { what: `Installing ${names.join(' ')}`, ...shielded });
  }
}

/**
 * Makes the private apt ready: the system's Debian archive, and its backports where asked for.
 * @param {string} codename
 * @param {boolean} backports
 */
export async function openPrivateApt(codename, backports) {
  rmSync(aptDir, { recursive: true, force: true });
  for (const folder of ['sources', 'state/lists/partial', 'cache/archives/partial', 'empty']) {
    mkdirSync(path.join(aptDir, folder), { recursive: true });
  }
  const entries = debianEntries('/etc/apt', codename, backports);
  if (entries.length === 0) {
    throw new SetupError(
      `no Debian archive for ${codename} was found in /etc/apt/sources.list or /etc/apt/sources.list.d`,
      `Add one ("deb http://deb.debian.org/debian ${codename} main" in /etc/apt/sources.list) and run this again.`,
    );
  }
  writeFileSync(path.join(aptDir, 'sources/drover.sources'), writeEntries(entries));
  const settings = {
    'Dir::State': 'state',
    'Dir::State::lists': 'state/lists',
    'Dir::Cache': 'cache',
    'Dir::Cache::archives': 'cache/archives',
    'Dir::Etc::sourceparts': 'sources',
    'Dir::Etc::preferencesparts': 'empty',
  };
  const lines = Object.entries(settings).map(([key, folder]) => `${key} "${path.join(aptDir, folder)}";`);
  lines.push(
    'Dir::State::status "/var/lib/dpkg/status";',
    'Dir::Etc::sourcelist "/dev/null";',
    'Dir::Etc::preferences "/dev/null";',
    'Dir::Cache::pkgcache "";',
    'Dir::Cache::srcpkgcache "";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    // apt's own download user cannot write into a folder in somebody's home; signatures are checked all the same
    'APT::Sandbox::User "root";',
    // what the system does after an update or an installation is none of our business here
    ...['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success'].map((hook) => `#clear APT::Update::${hook};`),
  );
  writeFileSync(aptConf, `${lines.join('\n')}\n`);
  const uris = [...new Set(entries.flatMap((entry) => entry.uris))].join(', ');
  await command(['apt-get', '-c', aptConf, '-o', 'APT::Update::Error-Mode=any', 'update'], {
    what: `Reading the package lists of ${uris}`,
    deadlineMs: 15 * minuteMs,
    hint: `Check that this machine reaches that mirror${backports ? ` and that the mirror carries ${codename}-backports` : ''}, then run this again.`,
  });
}

export function closePrivateApt() {
  rmSync(aptDir, { recursive: true, force: true });
}

/** The package that a metapackage stands for: the first name in its Depends that matches. */
export function resolveDependency(name, pattern) {
  const shown = ask('apt-cache', ['-c', aptConf, 'show', '--no-all-versions', name]) ?? '';
  const depends = /^Depends: (.*)$/m.exec(shown)?.[1] ?? '';
  const found = depends
    .split(/[,|]/)
    .map((part) => part.trim().split(' ')[0])
    .find((part) => pattern.test(part ?? ''));
  if (found === undefined) {
    throw new SetupError(
      `the Debian archive does not say which package ${name} stands for`,
      'Check the mirror in /etc/apt, then run this again.',
    );
  }
  return found;
}

/** A package and those it needs, as far as `pattern` matches their names; of alternatives the first that the archive has. */
export function withDependencies(name, pattern) {
  const all = new Set([name]);
  for (const each of all) {
    const shown = ask('apt-cache', ['-c', aptConf, 'show', '--no-all-versions', each]) ?? '';
    for (const [, clauses] of shown.matchAll(/^(?:Pre-)?Depends: (.*)$/gm)) {
      for (const clause of clauses.split(',')) {
        const names = clause.split('|').map((part) => part.trim().replace(/[ :(].*$/s, ''));
        const found = names.find((part) => pattern.test(part) && isInArchive(part));
        if (found !== undefined) all.add(found);
      }
    }
  }
  return [...all];
}

/** A package and all those it needs that are not installed here, as apt itself works them out. */
export function neededFor(name) {
  const plan = ask('apt-get', ['-c', aptConf, '-s', '--no-install-recommends', 'install', name]) ?? '';
  const names = [...plan.matchAll(/^Inst (\S+)/gm)].map(([, each]) => each);
  if (names.length > 0) return names;
  throw new SetupError(
    `the Debian archive does not say what ${name} needs`,
    'Check the mirror in /etc/apt, then run this again.',
  );
}

function isInArchive(name) {
  return /^Package: /m.test(ask('apt-cache', ['-c', aptConf, 'show', '--no-all-versions', name]) ?? '');
}

/**
 * Downloads packages and unpacks them into `target`, all or nothing: `target` appears by one rename.
 * @param {{ target: string, packages: string[], suite?: string }} what
 * The file `.complete` in it says which package files they were and what those depend on.
 */
export async function unpackPrivately({ target, packages, suite }) {
  const debs = path.join(aptDir, 'debs', path.basename(target));
  const staging = `${target}.new`;
  for (const folder of [debs, staging]) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
  }
  const from = suite === undefined ? [] : ['-t', suite];
  await command(['apt-get', '-c', aptConf, ...from, 'download', ...packages], {
    what: `Downloading ${packages.join(' ')}`,
    cwd: debs,
    deadlineMs: 30 * minuteMs,
  });
  const files = readdirSync(debs).filter((file) => file.endsWith('.deb'));
  const depends = new Set();
  for (const file of files) {
    const deb = path.join(debs, file);
    await command(['dpkg-deb', '-x', deb, staging], { what: `Unpacking ${file}`, deadlineMs: 10 * minuteMs });
    for (const field of ['Pre-Depends', 'Depends']) {
      for (const clause of (ask('dpkg-deb', ['-f', deb, field]) ?? '').trim().split(/,\s*/)) {
        if (clause !== '') depends.add(clause.replaceAll(/\s*\([^)]*\)|:any/g, ''));
      }
    }
  }
  writeFileSync(path.join(staging, '.complete'), `${JSON.stringify({ files, depends: [...depends] }, null, 2)}\n`);
  rmSync(target, { recursive: true, force: true });
  renameSync(staging, target);
}

/** What `unpackPrivately` has put there; undefined where it has not, or not to the end. */
export function unpacked(target) {
  const file = path.join(target, '.complete');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}

/** Alternatives ("a | b") of which none is installed; the first of each is what to install. */
export function unmetDependencies(clauses) {
  const names = clauses.flatMap((clause) => clause.split(/\s*\|\s*/));
  const missing = new Set(notInstalled(names));
  return clauses
    .map((clause) => clause.split(/\s*\|\s*/))
    .filter((alternatives) => alternatives.every((name) => missing.has(name)))
    .map((alternatives) => alternatives[0]);
}
