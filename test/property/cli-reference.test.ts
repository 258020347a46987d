/** The reference of the command line and the man pages are those of the commands (write them anew with vitest -u). */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { agentCommand } from '../../src/agent/main.ts';
import { guardCommand } from '../../src/agent/guard/main.ts';
import { commandTree } from '../../src/cli/main.ts';
import { serverCommand } from '../../src/control/main.ts';
import { restoreProgram } from '../../src/control/restore.ts';
import { labCommand } from '../../src/lab/main.ts';
import { endpoints } from '../../src/wire/endpoints.ts';
import { cliReference, manPages, visibleCommands } from '../../tools/cli-reference.ts';

const repository = join(import.meta.dirname, '../..');
const man = join(repository, 'packaging/man');
const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { version: string };
const programs = () => [
  serverCommand(),
  agentCommand(),
  guardCommand(),
  restoreProgram(),
  labCommand(() => {}, new AbortController()),
];
const noGroff = spawnSync('groff', ['--version']).error !== undefined;
const pages = manPages(commandTree(), programs(), version);

it('docs/reference/cli.md is fresh, and names every command', async () => {
  const text = cliReference(commandTree(), programs());
  await expect(text).toMatchFileSnapshot('../../docs/reference/cli.md');
  for (const name of ['drover host list', 'drover migrate', 'drover server', 'drover guard', 'drover lab up'])
    expect(text).toMatch(new RegExp(`^##+ ${name}$`, 'm'));
});

it('docs/reference/json.md says of every command what it prints', () => {
  const told = readFileSync(join(repository, 'docs/reference/json.md'), 'utf8');
  const leaves = (command: Command, path: string): string[] => {
    const children = visibleCommands(command);
    const here = children.length === 0 ? [path] : [];
    return [...here, ...children.flatMap((child) => leaves(child, `${path} ${child.name()}`))];
  };
  const theirs = new Set(programs().map((program) => program.name()));
  const missing = leaves(commandTree(), 'drover').filter((name) => !theirs.has(name) && !told.includes(`\`${name}\``));
  expect(missing).toEqual([]);
  const operations = [...told.matchAll(/(?:repl(?:y|ies)|stream) of (?:the )?`(\w+)`/g)].map(([, name = '']) => name);
  expect(operations.filter((name) => !Object.hasOwn(endpoints, name))).toEqual([]);
});

describe('man pages', () => {
  it.each(pages)('$file is fresh', async ({ file, text }) => {
    await expect(text).toMatchFileSnapshot(join(man, file));
  });

  it('there are no others', () => {
    expect(readdirSync(man).filter((name) => !pages.some(({ file }) => file === name))).toEqual([]);
  });

  it.skipIf(noGroff)('groff has no warning about any, and shows their options', () => {
    const input = pages.map(({ text }) => text).join('');
    const { stdout, stderr, error } = spawnSync('groff', ['-man', '-ww', '-Tutf8', '-P-cbou'], {
      encoding: 'utf8',
      input,
    });
    expect(error).toBeUndefined();
    expect(stderr).toBe('');
    for (const shown of [
      '--max-downtime',
      'drover host list',
      '--metrics-listen',
      'drover migrate web1 --to h2 --watch',
    ])
      expect(stdout).toContain(shown);
  });
});
