/** The first word of the command line decides which program this is. The only file that may import them all. */
// Whoever reads the output may stop reading (`drover … | head`): that is no error of ours.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}

const [word, ...rest] = process.argv.slice(2);

switch (word) {
  case 'server':
    process.exitCode = await (await import('./control/main.ts')).runServer(rest);
    break;
  case 'agent':
    process.exitCode = await (await import('./agent/main.ts')).runAgent(rest);
    break;
  case 'restore':
    process.exitCode = await (await import('./control/main.ts')).runRestore(rest);
    break;
  case 'guard':
    process.exitCode = await (await import('./agent/guard/main.ts')).runGuard(rest);
    break;
  case 'lab':
    process.exitCode = await (await import('./lab/main.ts')).runLab(rest);
    break;
  default:
    process.exitCode = await (await import('./cli/main.ts')).runCli(process.argv.slice(2));
}
