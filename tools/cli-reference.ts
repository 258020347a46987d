/**
 * The command line as documents, from the commands themselves: docs/reference/cli.md and the pages of `man`. Written by a test
 * (test/property/cli-reference.test.ts), which also asks that they are fresh. Not here: what the commands say.
 */
import type { EventEmitter } from 'node:events';
import type { Argument, Command, Option } from 'commander';

/** Of the manual: programs. */
const section = '1';

interface Described {
  readonly term: string;
  readonly says: string;
}

interface CommandText {
  /** As it is written: "drover host list". */
  readonly name: string;
  readonly usage: string;
  readonly description: string;
  readonly aliases: readonly string[];
  readonly args: readonly Described[];
  readonly options: readonly Described[];
  /** What help says behind its options, without examples. */
  readonly more: string;
  readonly examples: readonly string[];
}

export interface Page {
  readonly file: string;
  readonly text: string;
}

/** One program, or one of the first words of the CLI: a page of its own, with what stands below it. */
interface Part {
  readonly name: string;
  readonly commands: readonly CommandText[];
}

function textOf(command: Command, name: string): CommandText {
  const options = command.options.filter(({ hidden }) => !hidden).map(optionText);
  const args = command.registeredArguments.map(argumentText);
  const { more, examples } = afterHelp(command);
  return {
    name,
    usage: [name, ...command.usage().split(' ')].filter((word) => word !== '').join(' '),
    description: sentence(command.description()),
    aliases: command.aliases(),
    args: args.filter(({ says }) => says !== ''),
    options,
    more,
    examples,
  };
}

function optionText({ flags, description, defaultValue, argChoices, mandatory }: Option): Described {
  const choices = argChoices ? ` (${argChoices.join(', ')})` : '';
  const shown = typeof defaultValue === 'string' || typeof defaultValue === 'number' ? `; else ${defaultValue}` : '';
  return { term: flags, says: `${description}${choices}${shown}${mandatory ? '; must be given' : ''}` };
}

function argumentText(argument: Argument): Described {
  const choices = argument.argChoices ? ` (${argument.argChoices.join(', ')})` : '';
  return { term: argument.name(), says: `${argument.description}${choices}`.trim() };
}

/** What `addHelpText` has put behind a command's help. */
export function behindHelp(command: Command): string {
  let text = '';
  // It is an emitter, and tells its help that way; its types do not say so.
  const emitter = command as unknown as EventEmitter;
  emitter.emit('afterHelp', { command, error: false, write: (more: string) => (text += more) });
  return text;
}

/** The same, its examples apart. */
function afterHelp(command: Command): { more: string; examples: string[] } {
  const text = behindHelp(command);
  const [before = '', ...rest] = text.split(/^Examples?:\n/m);
  const behind = rest.join('\n');
  const lines = behind.split('\n');
  const end = lines.findIndex((line) => line !== '' && !line.startsWith('  '));
  const examples = (end < 0 ? lines : lines.slice(0, end)).filter((line) => line !== '');
  const more = end < 0 ? '' : lines.slice(end).join('\n');
  return {
    more: `${before.trim()}\n\n${more.trim()}`.trim(),
    examples: examples.map((line) => line.replace(/^ {2}/, '')),
  };
}

function below(command: Command, name: string): CommandText[] {
  const children = visibleCommands(command);
  return [textOf(command, name), ...children.flatMap((child) => below(child, `${name} ${child.name()}`))];
}

/** Those that help shows. */
export function visibleCommands(command: Command): Command[] {
  const shown = new Set(command.createHelp().visibleCommands(command));
  return command.commands.filter((child) => shown.has(child));
}

function partsOf(cli: Command, programs: readonly Command[]): Part[] {
  const own = programs.map((program): Part => ({ name: program.name(), commands: below(program, program.name()) }));
  // A first word that stands for a program of its own has that program's page instead.
  const theirs = new Set(own.map(({ name }) => name));
  const words = visibleCommands(cli)
    .map((command) => ({ name: `drover ${command.name()}`, command }))
    .filter(({ name }) => !theirs.has(name))
    .map(({ name, command }): Part => ({ name, commands: below(command, name) }));
  return [...words, ...own];
}

function sentence(text: string): string {
  const flat = text.replaceAll(/\s*\n\s*/g, ' ');
  return `${flat.charAt(0).toUpperCase()}${flat.slice(1)}${/[.!?]$/.test(flat) ? '' : '.'}`;
}

/** @param programs those that are no part of the CLI's own tree: server, agent */
export function cliReference(cli: Command, programs: readonly Command[]): string {
  const top = textOf(cli, 'drover');
  const parts = partsOf(cli, programs);
  const rows = (described: readonly Described[]) =>
    described
      .map(({ term, says }) => `| \`${term.replaceAll('|', '\\|')}\` | ${says.replaceAll('|', '\\|')} |`)
      .join('\n');
  const table = (head: string, described: readonly Described[]) =>
    described.length === 0 ? '' : `| ${head} | |\n|---|---|\n${rows(described)}\n\n`;
  const block = (lines: readonly string[]) =>
    lines.length === 0 ? '' : `${lines.map((line) => `    ${line}`).join('\n')}\n\n`;
  const one = (command: CommandText, depth: string): string =>
    `${depth} ${command.name}\n\n${block([command.usage])}${command.description}` +
    `${command.aliases.length === 0 ? '' : ` Also: ${command.aliases.map((alias) => `\`${alias}\``).join(', ')}.`}\n\n` +
    table('argument', command.args) +
    table('option', command.options) +
    (command.more === '' ? '' : block(command.more.split('\n'))) +
    block(command.examples);
  const index = parts.map(
    ({ name, commands }) => `- [${name}](#${name.replaceAll(' ', '-')}): ${commands[0]?.description}`,
  );
  return `# Command line

Written from the commands themselves; \`drover COMMAND --help\` says the same, and so does \`man drover-COMMAND\`. What
\`--output json\` prints: [JSON](json.md).

${index.join('\n')}

## Options of every command

${table('option', top.options)}${block(top.more.split('\n'))}${parts
    .map(({ commands }) => commands.map((command, at) => one(command, at === 0 ? '##' : '###')).join(''))
    .join('')}`
    .trimEnd()
    .concat('\n');
}

/** Pages of `man`: drover, and one for each first word and program. */
export function manPages(cli: Command, programs: readonly Command[], version: string): Page[] {
  const parts = partsOf(cli, programs);
  const top = textOf(cli, 'drover');
  const list = parts.map(({ name, commands }): Described => ({ term: name, says: commands[0]?.description ?? '' }));
  const overview = [
    ...heading('drover', version, top.description),
    ...synopsis([top.usage]),
    '.SH COMMANDS',
    'Each has a page of its own: \\fBdrover\\-host\\fR(1) is that of \\fBdrover host\\fR.',
    ...described(list),
    '.SH OPTIONS',
    ...described(top.options),
    ...notes(top),
    ...examples(top),
  ];
  return [
    { file: `drover.${section}`, text: written(overview) },
    ...parts.map(({ name, commands }) => ({
      file: `${name.replaceAll(' ', '-')}.${section}`,
      text: written(pageOf(name, commands, version)),
    })),
  ];
}

function pageOf(name: string, commands: readonly CommandText[], version: string): string[] {
  const [top, ...rest] = commands;
  if (top === undefined) return [];
  return [
    ...heading(name.replaceAll(' ', '-'), version, top.description),
    ...synopsis(commands.filter(({ usage }) => !usage.endsWith('[command]')).map(({ usage }) => usage)),
    '.SH DESCRIPTION',
    roff(top.description),
    ...(top.aliases.length === 0 ? [] : ['.PP', roff(`Also written as ${top.aliases.join(', ')}.`)]),
    ...(top.args.length + top.options.length === 0 ? [] : ['.SH OPTIONS', ...described([...top.args, ...top.options])]),
    ...(rest.length === 0 ? [] : ['.SH COMMANDS']),
    ...rest.flatMap((command) => [
      `.SS ${quoted(command.name)}`,
      roff(command.description),
      ...described([...command.args, ...command.options]),
      ...(command.more === '' ? [] : ['.PP', ...verbatim(command.more.split('\n'))]),
      ...(command.examples.length === 0 ? [] : ['.PP', ...verbatim(command.examples)]),
    ]),
    ...notes(top),
    ...examples(top),
    '.SH SEE ALSO',
    '\\fBdrover\\fR(1)',
  ];
}

function heading(name: string, version: string, says: string): string[] {
  const short = says.replace(/\.$/, '').split(/[;:.] /)[0] ?? says;
  return [
    '.\\" Written from the commands themselves by a test; change those instead.',
    `.TH ${quoted(name.toUpperCase())} ${section} "" ${quoted(`drover ${version}`)} "Drover"`,
    '.SH NAME',
    `${roff(name)} \\- ${roff(`${short.charAt(0).toLowerCase()}${short.slice(1)}`)}`,
  ];
}

function synopsis(usages: readonly string[]): string[] {
  return ['.SH SYNOPSIS', ...usages.flatMap((usage, at) => [...(at === 0 ? [] : ['.br']), roff(usage)])];
}

function described(list: readonly Described[]): string[] {
  return list.flatMap(({ term, says }) => ['.TP', `\\fB${roff(term)}\\fR`, roff(says)]);
}

function notes({ more }: CommandText): string[] {
  return more === '' ? [] : ['.SH NOTES', ...verbatim(more.split('\n'))];
}

function examples({ examples: lines }: CommandText): string[] {
  return lines.length === 0 ? [] : ['.SH EXAMPLES', ...verbatim(lines)];
}

function verbatim(lines: readonly string[]): string[] {
  return ['.RS 4', '.nf', ...lines.map((line) => (line === '' ? '\\&' : roff(line))), '.fi', '.RE'];
}

/** Text as groff wants it: what it would take for its own is escaped. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('"', '\\(dq')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha')
    .replace(/^\./, '\\&.');
}

function quoted(text: string): string {
  return `"${roff(text)}"`;
}

function written(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`;
}
