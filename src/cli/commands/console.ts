/** `drover vm console`: the VM's serial line, through the server, as raw bytes both ways. */
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import type { Command } from 'commander';
import { UserError, messageOf } from '../../model/failure.ts';
import { apiPrefix } from '../../wire/client.ts';
import { userErrorOf } from '../../wire/errors.ts';
import { findConnection } from '../connection.ts';
import { interruptible, named, type Context } from '../context.ts';

const upgradeDeadlineMs = 15_000;
/** Ctrl-] as in telnet: a guest's shell has no use for it. */
const leaveByte = 0x1d;
/** With pipes: how long the guest may be quiet after the input's end before we leave. */
const quietMs = 1_000;

export function addConsole(vm: Command, context: Context): void {
  vm.command('console <vm>')
    .description('attach to the serial line; leave with Ctrl-]')
    .option('--raw', 'without a terminal: pipe stdin and stdout')
    .addHelpText(
      'after',
      `
Examples:
  $ drover vm console web1
  $ echo uptime | drover vm console web1 --raw`,
    )
    .action((name: string, { raw }: { raw?: true }) => attach(context, name, raw ?? false));
}

async function attach(context: Context, name: string, raw: boolean): Promise<void> {
  const { stdin, stdout } = context.surroundings;
  if (!raw && !(stdin.isTTY && stdout.isTTY)) {
    throw new UserError(
      'invalid-input',
      'The console needs a terminal.',
      'Use --raw to pipe stdin and stdout instead.',
    );
  }
  const view = await named(context, { vm: name }, () => context.client().getVm({ params: { vm: name } }));
  const { socket, head } = await openTunnel(context, view.id);
  const terminal = !raw && stdin.isTTY;
  const interruption = interruptible(context);
  if (terminal) {
    context.say(`Attached to ${view.name}. Leave with Ctrl-].`);
    stdin.setRaw(true);
  }
  try {
    if (head.length > 0) stdout.write(head);
    await pump(context, socket, terminal, interruption.signal);
  } finally {
    interruption.stop();
    socket.destroy();
    if (terminal) {
      stdin.setRaw(false);
      context.say(`\nLeft the console of ${view.name}; it runs on.`);
    }
  }
}

/** Resolves when the user leaves or the server closes. @throws UserError when the connection breaks */
async function pump(context: Context, socket: Socket, terminal: boolean, signal: AbortSignal): Promise<void> {
  const { stdin, stdout, clock } = context.surroundings;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let inputEnded = false;
  let quiet = { cancel: (): void => {} };
  const leaveWhenQuiet = (): void => {
    quiet.cancel();
    if (inputEnded) quiet = clock.setTimeout(resolve, quietMs);
  };
  socket.on('data', (data: Uint8Array) => {
    stdout.write(data);
    leaveWhenQuiet();
  });
  socket.on('close', () => resolve());
  socket.on('error', (cause) =>
    reject(
      new UserError('unavailable', `The console was cut off: ${cause.message}.`, 'The guest runs on; attach again.', {
        cause,
      }),
    ),
  );
  signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  const send = async (): Promise<void> => {
    for await (const chunk of stdin) {
      const leave = terminal ? chunk.indexOf(leaveByte) : -1;
      const kept = leave < 0 ? chunk : chunk.subarray(0, leave);
      if (kept.length > 0 && !socket.write(kept)) await drained(socket);
      if (leave >= 0) return resolve();
    }
    inputEnded = true;
    leaveWhenQuiet();
  };
  send().catch(reject);
  try {
    await promise;
  } finally {
    quiet.cancel();
    stdin.leave();
  }
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.once('drain', resolve);
    socket.once('close', () => resolve());
  });
}

/** At the first server that is there. */
async function openTunnel(context: Context, vm: string): Promise<{ socket: Socket; head: Buffer }> {
  const { server, token } = findConnection(context.flags(), context.surroundings);
  const servers = server.split(',');
  for (const [i, each] of servers.entries()) {
    try {
      return await openTunnelAt(each, token, vm);
    } catch (error) {
      if (i + 1 === servers.length || !(error instanceof UserError && error.code === 'unavailable')) throw error;
    }
  }
  throw new Error('no server is named');
}

function openTunnelAt(server: string, token: string, vm: string): Promise<{ socket: Socket; head: Buffer }> {
  const base = new URL(server.endsWith('/') ? server : `${server}/`);
  const url = new URL(`.${apiPrefix}/vms/${encodeURIComponent(vm)}/console`, base);
  const { promise, resolve, reject } = Promise.withResolvers<{ socket: Socket; head: Buffer }>();
  const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, {
    headers: { authorization: `Bearer ${token}`, connection: 'Upgrade', upgrade: 'drover-console' },
    signal: AbortSignal.timeout(upgradeDeadlineMs),
  });
  request.on('upgrade', (_response, socket: Socket, head) => resolve({ socket, head }));
  request.on('response', (response) => {
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (chunk: string) => (text += chunk));
    response.on('end', () => reject(userErrorOf(parsed(text), response.statusCode ?? 0)));
    response.on('error', reject);
  });
  request.on('error', (cause) =>
    reject(
      new UserError(
        'unavailable',
        `The console cannot be reached at ${server}: ${messageOf(cause)}.`,
        'Check that `drover server` runs there.',
        { cause },
      ),
    ),
  );
  request.end();
  return promise;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
