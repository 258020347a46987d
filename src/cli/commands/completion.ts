/** `drover completion bash`: commands and options for the shell, written from the commands themselves. */
import { Argument, type Command } from 'commander';
import type { Context } from '../context.ts';

export function addCompletion(program: Command, context: Context): void {
  program
    .command('completion')
    .description('a script that lets the shell complete commands and options')
    .addArgument(new Argument('<shell>', 'which shell').choices(['bash']))
    .addHelpText('after', '\nExample:\n  $ source <(drover completion bash)')
    .action(() => context.surroundings.stdout.write(bashScript(program)));
}

function bashScript(program: Command): string {
  const cases: string[] = [];
  const visit = (command: Command, path: string): void => {
    const words = [
      ...command.commands.map((child) => child.name()),
      ...command.options.map((option) => option.long ?? option.short ?? ''),
      ...(command === program ? [] : program.options.map((option) => option.long ?? '')),
      '--help',
    ];
    cases.push(`    '${path}') words='${words.join(' ')}' ;;`);
    for (const child of command.commands) visit(child, `${path} ${child.name()}`.trim());
  };
  visit(program, '');
  return `# bash completion of drover
_drover() {
  local path='' word words='' index
  for ((index = 1; index < COMP_CWORD && index < 3; index++)); do
    word="\${COMP_WORDS[index]}"
    case "$word" in
      node) word=host ;;
      instance) word=vm ;;
    esac
    case "$path" in
      '' | host | vm | migration) [[ "$word" == -* ]] || path="\${path:+$path }$word" ;;
    esac
  done
  case "$path" in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _drover drover
`;
}
