/** The first word of the command line decides which program this is. The only file that may import them all. */
const [word, ...rest] = process.argv.slice(2);

switch (word) {
  case 'server':
    process.exitCode = await (await import('./control/main.ts')).runServer(rest);
    break;
  case 'agent':
    process.exitCode = await (await import('./agent/main.ts')).runAgent(rest);
    break;
  case 'lab':
    process.exitCode = await (await import('./lab/main.ts')).runLab(rest);
    break;
  default:
    process.exitCode = await (await import('./cli/main.ts')).runCli(process.argv.slice(2));
}
