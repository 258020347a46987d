/** Completion in real shells: what each offers for a line that somebody is writing, with a server that knows some names. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { completionScript, shells, type Shell } from '../../src/cli/completion.ts';
import { aHost, aVm, fakeServer, type FakeServer } from '../../src/cli/fake-server.ts';
import { commandTree } from '../../src/cli/main.ts';

const repository = join(import.meta.dirname, '../..');
const unpacked = join(repository, '.drover/shells');
const libraries = join(unpacked, 'usr/lib/x86_64-linux-gnu');

let server: FakeServer;
let directory: string;
beforeAll(async () => {
  server = await fakeServer({
    listVms: () => [aVm({ name: 'web1' }), aVm({ name: 'web2' }), aVm({ name: 'db' })],
    listHosts: () => [aHost({ name: 'h1' }), aHost({ name: 'h2' })],
  });
  directory = mkdtempSync(join(tmpdir(), 'drover-completion-'));
  for (const shell of shells) writeFileSync(join(directory, shell), completionScript(commandTree(), shell));
  writeFileSync(join(directory, 'fleet.json'), '{}');
  writeFileSync(join(directory, 'drover'), `#!/bin/sh\nexec ${join(repository, 'bin/drover')} "$@"\n`, { mode: 0o755 });
});
afterAll(async () => {
  rmSync(directory, { recursive: true, force: true });
  await server.close();
});

async function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const child = spawn(program, args, {
    cwd: directory,
    env: {
      PATH: `${directory}:${process.env['PATH']}`,
      HOME: directory,
      TERM: 'xterm',
      LC_ALL: 'C.UTF-8',
      DROVER_SERVER: server.url,
      DROVER_TOKEN: 'secret',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 50_000,
  });
  const [out, error] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  // A script that a shell does not understand is told of here, and completes nothing.
  expect(error).toBe('');
  return out;
}

function located(path: string): string {
  const found = [join(unpacked, path), join('/', path)].find((place) => existsSync(place));
  if (found === undefined) throw new Error(`There is no ${path}: run npm run setup`);
  return found;
}

/** One line that is written up to its end: what is offered there. */
type Complete = (line: string) => Promise<string[]>;

const inBash: Complete = async (line) => {
  const words = line.split(' ').map((word) => `'${word}'`);
  const ask = `source ./bash; COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; _drover; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return offered(await run('bash', ['--norc', '--noprofile', '-c', ask]));
};

const inFish: Complete = async (line) => {
  const fish = located('usr/bin/fish');
  // One that was moved does not find its own functions.
  const functions = fish.startsWith(unpacked) ? `set fish_function_path ${unpacked}/usr/share/fish/functions;` : '';
  const ask = `${functions} source ./fish; complete -C '${line}'`;
  const out = await run(fish, ['--no-config', '-c', ask], { LD_LIBRARY_PATH: libraries });
  return offered(out).map((each) => each.split('\t')[0] ?? '');
};

/** In a terminal of its own, where a key is pressed; what the completion system is given is written down. */
const inZsh: Complete = async (line) => {
  const zsh = located('bin/zsh');
  const own = zsh.startsWith(unpacked);
  const functions = join(own ? unpacked : '/', 'usr/share/zsh/functions');
  const modules = own ? `module_path=(${libraries}/zsh/$ZSH_VERSION);` : '';
  const offers = join(directory, 'offers');
  rmSync(offers, { force: true });
  writeFileSync(
    join(directory, 'inner.zsh'),
    `${modules} ${own ? `fpath=(${functions} ${functions}/**/*(/));` : ''} autoload -Uz compinit; compinit -u -D
source ./zsh
compadd() {
  if [[ " $* " == *' -'[OAD]' '* ]]; then builtin compadd "$@"; return; fi
  local -a hits; builtin compadd -A hits "$@"; print -l -- $hits >> ${offers}
  builtin compadd "$@"
}
zstyle ':completion:*' menu no; LISTMAX=10000; unsetopt BEEP; PROMPT='READY>'
`,
  );
  const outer = `${modules} zmodload zsh/zpty
zpty inner ${zsh} -f -i; zpty -w inner 'source ./inner.zsh'; zpty -r inner out '*READY>*'
zpty -w -n inner '${line}'$'\\t'; zpty -w inner $'\\x15exit'; while zpty -r inner out; do :; done`;
  await run(zsh, ['-f', '-c', outer]);
  return existsSync(offers) ? offered(readFileSync(offers, 'utf8')) : [];
};

function offered(out: string): string[] {
  return [...new Set(out.split('\n').filter((each) => each !== ''))].toSorted((a, b) => (a < b ? -1 : 1));
}

const complete: Record<Shell, Complete> = { bash: inBash, zsh: inZsh, fish: inFish };

describe.each(shells)('%s', (shell) => {
  test.each<[line: string, offers: string[]]>([
    ['drover host sl', ['sleep', 'sleep-way']],
    ['drover node cor', ['cordon']],
    ['drover migrat', ['migrate', 'migration', 'migrations']],
    ['drover migrate web1 --tech', ['--technique']],
    ['drover migrate web1 --technique po', ['post-copy']],
    ['drover --output js', ['json']],
    ['drover vm show w', ['web1', 'web2']],
    ['drover migrate web1 --to ', ['h1', 'h2']],
    ['drover --output json host dra', ['drain']],
    ['drover host drain h1 --bec', ['--because']],
    ['drover plan fl', ['fleet.json']],
    ['drover completion ', ['bash', 'fish', 'zsh']],
  ])('%s', async (line, offers) => {
    expect(await complete[shell](line)).toEqual(offers);
  });

  test('offers every command, and none that is hidden', async () => {
    const offers = await complete[shell]('drover ');
    expect(offers).toEqual(expect.arrayContaining(['host', 'vm', 'migrate', 'completion', 'doctor']));
    expect(offers).not.toContain('names');
  });
});

test('where no server answers no names are offered, and nothing is said', async () => {
  const out = await run(join(directory, 'drover'), ['completion', 'names', 'vm'], {
    DROVER_SERVER: 'http://127.0.0.1:9',
  });
  expect(out).toBe('');
});
