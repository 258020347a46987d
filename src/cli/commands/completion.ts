/** `drover completion bash`: a script for the shell; `drover completion names vm` is what that script asks. */
import { Argument, type Command } from 'commander';
import { completionScript, namedKinds, shells, type Shell } from '../completion.ts';
import type { Context } from '../context.ts';

/** Somebody has pressed a key and waits. */
const namesWithinMs = 2_000;

export function addCompletion(program: Command, context: Context): void {
  const write = (text: string): void => context.surroundings.stdout.write(text);
  const completion = program
    .command('completion')
    .description('a script that lets the shell complete commands, options and names')
    .addArgument(new Argument('<shell>', 'which shell').choices([...shells]))
    .addHelpText(
      'after',
      `
Names of VMs and hosts are asked of the server when they are wanted.

Examples:
  $ source <(drover completion bash)
  $ source <(drover completion zsh)
  $ drover completion fish | source`,
    )
    .action((shell: Shell) => write(completionScript(program, shell)));
  // For the scripts: not in help, and silent where no server answers.
  const names = completion
    .command('names', { hidden: true })
    .addArgument(new Argument('<kind>', 'of what').choices([...namedKinds]));
  names.action(async (kind: (typeof namedKinds)[number]) => {
    const signal = AbortSignal.timeout(namesWithinMs);
    const list = kind === 'vm' ? context.client().listVms({}, { signal }) : context.client().listHosts({}, { signal });
    const found = await list.catch(() => []);
    for (const { name } of found) write(`${name}\n`);
  });
}
