/** The examples that help shows: every command has one, and each is a command line that this version takes. */
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { commandTree } from '../../src/cli/main.ts';
import { behindHelp, visibleCommands } from '../../tools/cli-reference.ts';

function all(command: Command, path: readonly string[] = []): { path: readonly string[]; command: Command }[] {
  const children = visibleCommands(command).flatMap((child) => all(child, [...path, child.name()]));
  return [{ path, command }, ...children];
}

const commands = all(commandTree()).map(({ path, command }) => ({ name: ['drover', ...path].join(' '), command }));
const examples = commands.flatMap(({ name, command }) =>
  [...behindHelp(command).matchAll(/^ {2}(?:\$ )?((?:[A-Z_]+=\S+ )*drover .*)$/gm)].map(([, line = '']) => ({
    name,
    line,
  })),
);

/** As a shell would, as far as examples go: quotes, and no more of the line behind a pipe or a redirection. */
function wordsOf(line: string): string[] {
  const [own = ''] = line.split(/ [|>] | #|\)$/);
  return [...own.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? '');
}

describe('every command', () => {
  it('is here', () => expect(commands.length).toBeGreaterThan(60));

  it.each(commands)('$name has an example in its help, and says what it does', ({ command }) => {
    expect(behindHelp(command)).toMatch(/^Examples?:\n {2}(\$ )?.*drover /m);
    expect(command.description()).not.toBe('');
    for (const option of command.options) expect([option.flags, option.description]).not.toContain('');
  });
});

describe('every example', () => {
  it.each(examples)('$line', async ({ line }) => {
    const tree = commandTree();
    // Parsed to the end, and nothing done.
    for (const { command } of all(tree)) {
      command.action(() => {});
      command.exitOverride();
    }
    const words = wordsOf(line.slice(line.indexOf('drover ') + 'drover '.length));
    await tree.parseAsync(words, { from: 'user' });
  });
});
