/**
 * What shells need to complete a command line, taken from the commands themselves, as scripts for bash, zsh and fish. Commands,
 * options and choices stand in the script, so that nothing is started for them; names of VMs and hosts are asked for with
 * `drover completion names` at the moment they are wanted.
 *
 *   word by word: an option that takes a value skips it | a subcommand leads on | anything else is the next argument
 *
 * Not here: the command itself (commands/completion.ts).
 */
import type { Command } from 'commander';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];
/** Names that the server is asked for. */
export const namedKinds = ['vm', 'host'] as const;

/** `vm`, `host`: names of the fleet; `file`; a list: one of these. */
type Wanted = 'vm' | 'host' | 'file' | readonly string[];

interface Word {
  readonly word: string;
  readonly says: string;
}

interface Place {
  /** The words that lead here, "host list". */
  readonly path: string;
  /** By each word that leads on, aliases too. */
  readonly next: ReadonlyMap<string, string>;
  readonly commands: readonly Word[];
  readonly options: readonly Word[];
  /** Of options that take a value, in each way they are written. */
  readonly values: ReadonlyMap<string, Wanted | null>;
  /** By position; the last may stand again and again. */
  readonly args: readonly { readonly wanted: Wanted | null; readonly variadic: boolean }[];
}

export function completionScript(program: Command, shell: Shell): string {
  const places = placesOf(program);
  switch (shell) {
    case 'bash':
      return bashScript(places);
    case 'zsh':
      return zshScript(places);
    case 'fish':
      return fishScript(places);
  }
}

function placesOf(program: Command): Place[] {
  const places: Place[] = [];
  const visit = (command: Command, path: string): void => {
    const shown = new Set(command.createHelp().visibleCommands(command));
    const children = command.commands.filter((child) => shown.has(child));
    const own = command === program ? command.options : [...command.options, ...program.options];
    const options = own.filter(({ hidden, long }) => !hidden && (command === program || long !== '--version'));
    const isValued = (option: (typeof own)[number]): boolean => option.required || option.optional;
    places.push({
      path,
      next: new Map(
        children.flatMap((child) =>
          [child.name(), ...child.aliases()].map((word) => [word, `${path} ${child.name()}`.trim()] as const),
        ),
      ),
      commands: children.map((child) => ({ word: child.name(), says: child.description() })),
      options: [
        ...options.map(({ long, short, description }) => ({ word: long ?? short ?? '', says: description })),
        { word: '--help', says: 'print this help' },
      ],
      values: new Map(
        options.filter(isValued).flatMap((option) => {
          const wanted =
            option.argChoices ?? wantedBy(/[<[]([\w-]+)/.exec(option.flags.split(/[ =]/).at(-1) ?? '')?.[1]);
          return [option.long, option.short].flatMap((word) => (word ? [[word, wanted] as const] : []));
        }),
      ),
      args: command.registeredArguments.map((argument) => ({
        wanted: argument.argChoices ?? wantedBy(argument.name()) ?? standsForId(path, argument.name()),
        variadic: argument.variadic,
      })),
    });
    for (const child of children) visit(child, `${path} ${child.name()}`.trim());
  };
  visit(program, '');
  return places;
}

/** By what the placeholder is called: `<host>`, `<file>`. */
function wantedBy(name: string | undefined): Wanted | null {
  if (name === 'vm' || name === 'host') return name;
  return name === 'file' || name === 'dir' ? 'file' : null;
}

/** Of these a name does as well as the id, and means the latest. */
function standsForId(path: string, name: string): Wanted | null {
  const [first] = path.split(' ');
  if (name !== 'id') return null;
  return first === 'migration' ? 'vm' : first === 'drain' || first === 'recovery' ? 'host' : null;
}

/** As the scripts read it: "=table json" is a list. */
function inScript(wanted: Wanted | null): string {
  if (wanted === null) return 'none';
  return typeof wanted === 'string' ? wanted : `=${wanted.join(' ')}`;
}

interface Case {
  readonly keys: readonly string[];
  readonly gives: string;
}

/** The four tables of a script. Keys are "path|word" and "path|position". */
function tablesOf(places: readonly Place[]) {
  const next: Case[] = [];
  const values: Case[] = [];
  const args: Case[] = [];
  for (const place of places) {
    const { path } = place;
    for (const to of new Set(place.next.values())) {
      const words = [...place.next].filter(([, leadsTo]) => leadsTo === to).map(([word]) => `${path}|${word}`);
      next.push({ keys: words, gives: to });
    }
    for (const [word, wanted] of place.values) values.push({ keys: [`${path}|${word}`], gives: inScript(wanted) });
    place.args.forEach(({ wanted, variadic }, at) => {
      const keys = variadic ? Array.from({ length: 8 }, (_, more) => `${path}|${at + more}`) : [`${path}|${at}`];
      args.push({ keys, gives: inScript(wanted) });
    });
  }
  return { next, values: merged(values), args: merged(args) };
}

/** What leads to the same is one case. */
function merged(cases: readonly Case[]): Case[] {
  const by = new Map<string, string[]>();
  for (const { keys, gives } of cases) by.set(gives, [...(by.get(gives) ?? []), ...keys]);
  return [...by].map(([gives, keys]) => ({ keys, gives }));
}

function single(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** bash and zsh write a table alike. */
function posixCases(variable: string, cases: readonly Case[]): string {
  const lines = cases.map(({ keys, gives }) => `    ${keys.map(single).join('|')}) ${variable}=${single(gives)} ;;`);
  return lines.join('\n');
}

/** The walk over the words before the cursor, for bash and zsh. Sets place (not path: that is zsh's own), position and wanted. */
function posixWalk({ next, values, args }: ReturnType<typeof tablesOf>): string {
  return `_drover_next() {
  to=''
  case "$1" in
${posixCases('to', next)}
    *) return 1 ;;
  esac
}
_drover_value() {
  wanted=''
  case "$1" in
${posixCases('wanted', values)}
    *) return 1 ;;
  esac
}
_drover_argument() {
  wanted=''
  case "$1" in
${posixCases('wanted', args)}
  esac
}
_drover_walk() {
  local word to skip='' only=''
  place='' position=0 wanted=''
  for word in "$@"; do
    if [[ -n "$skip" ]]; then
      [[ "$word" == '=' ]] || skip=''
      continue
    fi
    if [[ -n "$only" ]]; then
      position=$((position + 1))
    elif [[ "$word" == '--' ]]; then
      only=1
    elif _drover_value "$place|$word"; then
      skip="$wanted"
    elif [[ "$word" == -* ]]; then
      :
    elif _drover_next "$place|$word"; then
      place="$to"
    else
      position=$((position + 1))
    fi
  done
  wanted="$skip"
  [[ -n "$wanted" ]] || _drover_argument "$place|$position"
}`;
}

function bashScript(places: readonly Place[]): string {
  const words = places.map(({ path, commands, options }) => {
    const list = (of: readonly Word[]) => of.map(({ word }) => word).join(' ');
    return `    ${single(path)}) commands=${single(list(commands))} options=${single(list(options))} ;;`;
  });
  return `# bash completion of drover: source <(drover completion bash)
${posixWalk(tablesOf(places))}
_drover() {
  local place position wanted commands='' options='' list='' cur="\${COMP_WORDS[COMP_CWORD]}"
  [[ "$cur" == '=' ]] && cur=''
  _drover_walk "\${COMP_WORDS[@]:1:COMP_CWORD-1}"
  case "$place" in
${words.join('\n')}
  esac
  case "$wanted" in
    '='*) list="\${wanted#=}" ;;
    vm | host) list="$("\${COMP_WORDS[0]}" completion names "$wanted" 2>/dev/null)" ;;
    file) COMPREPLY=($(compgen -f -- "$cur")); compopt -o filenames 2>/dev/null; return ;;
  esac
  if [[ "$cur" == -* ]]; then list="$options"
  elif [[ $position == 0 ]]; then list="$list $commands"; fi
  COMPREPLY=($(compgen -W "$list" -- "$cur"))
}
complete -F _drover drover
`;
}

function zshScript(places: readonly Place[]): string {
  const described = (of: readonly Word[]) =>
    of.map(({ word, says }) => single(`${word}:${says.split('\n')[0] ?? ''}`)).join(' ');
  const words = places.map(
    ({ path, commands, options }) =>
      `    ${single(path)}) commands=(${described(commands)}) options=(${described(options)}) ;;`,
  );
  return `#compdef drover
# zsh completion of drover: source <(drover completion zsh), or a file _drover in a directory of $fpath
${posixWalk(tablesOf(places))}
_drover() {
  local place position wanted cur="\${words[CURRENT]}"
  local -a commands options list
  _drover_walk "\${(@)words[2,CURRENT-1]}"
  case "$place" in
${words.join('\n')}
  esac
  if [[ "$cur" == -* ]]; then
    _describe -o 'option' options
    return
  fi
  case "$wanted" in
    '='*) list=("\${(@s: :)\${wanted#=}}") ;;
    vm|host) list=("\${(@f)$("\${words[1]}" completion names "$wanted" 2>/dev/null)}") ;;
    file) _files; return ;;
  esac
  (( \${#list} )) && compadd -- "\${(@)list:#}"
  [[ $position == 0 && \${#commands} != 0 ]] && _describe 'command' commands
  return 0
}
if [[ "\${funcstack[1]}" == _drover ]]; then _drover "$@"; else compdef _drover drover; fi
`;
}

function fishScript(places: readonly Place[]): string {
  const { next, values, args } = tablesOf(places);
  const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const cases = (of: readonly Case[]): string =>
    of.map(({ keys, gives }) => `    case ${keys.map(quoted).join(' ')}\n      echo -- ${quoted(gives)}`).join('\n');
  const lines = (of: readonly Word[]): string =>
    of
      .map(({ word, says }) => `      printf '%s\\t%s\\n' ${quoted(word)} ${quoted(says.split('\n')[0] ?? '')}`)
      .join('\n');
  const table = (name: string, of: readonly Case[]): string => `function ${name}
  switch $argv[1]
${cases(of)}
    case '*'
      return 1
  end
end`;
  const words = (of: 'commands' | 'options'): string => `function __drover_${of}
  switch $argv[1]
${places
  .filter((place) => place[of].length > 0)
  .map((place) => `    case ${quoted(place.path)}\n${lines(place[of])}`)
  .join('\n')}
  end
end`;
  return `# fish completion of drover: drover completion fish | source
${table('__drover_next', next)}
${table('__drover_value', values)}
${table('__drover_argument', args)}
${words('commands')}
${words('options')}
function __drover_complete
  set -l words (commandline -opc)
  set -l cur (commandline -ct)
  set -l path ''
  set -l position 0
  set -l skip ''
  set -l only ''
  for word in $words[2..-1]
    if test -n "$skip"
      set skip ''
    else if test -n "$only"
      set position (math $position + 1)
    else if test "$word" = --
      set only 1
    else if set -l value (__drover_value "$path|$word")
      set skip $value
    else if string match -q -- '-*' $word
      continue
    else if set -l to (__drover_next "$path|$word")
      set path $to
    else
      set position (math $position + 1)
    end
  end
  set -l wanted $skip
  test -n "$wanted"; or set wanted (__drover_argument "$path|$position")
  if string match -q -- '-*' $cur
    __drover_options "$path"
    return
  end
  switch "$wanted"
    case '=*'
      string split -- ' ' (string sub -s 2 -- $wanted)
    case vm host
      $words[1] completion names $wanted 2>/dev/null
    case file
      __fish_complete_path $cur
  end
  test $position = 0; and test -z "$skip"; and __drover_commands "$path"
end
complete -c drover -f -a '(__drover_complete)'
`;
}
