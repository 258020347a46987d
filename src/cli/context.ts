/**
 * What every command is given: the surroundings, the global options, the client, and the two ways of printing. Not here:
 * what a command does, and how errors become exit codes (main.ts).
 */
import { didYouMean } from '../model/ids.ts';
import { UserError, userErrorCodes } from '../model/failure.ts';
import { createClient, type Client } from '../wire/client.ts';
import { findConnection, type Connection, type ConnectionFlags } from './connection.ts';
import { trustFor } from './trust.ts';
import type { Surroundings } from './surroundings.ts';

/** Exit codes of every program, see docs. A command returns one, or throws. */
export const exitCodes = {
  done: 0,
  failed: 1,
  usage: 2,
  notConverged: 3,
  refused: 4,
  notFound: 5,
  interrupted: 130,
} as const;

export interface GlobalFlags extends ConnectionFlags {
  readonly output?: 'table' | 'json';
  readonly reason?: string;
}

export interface Context {
  readonly surroundings: Surroundings;
  /** As given on this command line; read only once it has been parsed. */
  flags(): GlobalFlags;
  /** Known once a client was asked for. */
  connection(): Connection | undefined;
  client(): Client;
  readonly json: boolean;
  /** Data, for stdout: JSON as asked for, else the words. */
  print(data: unknown, words: () => string): void;
  /** One JSON object on one line. */
  printLine(data: unknown): void;
  /** Words for people, on stderr; nothing of it is data. */
  readonly say: (words: string) => void;
  /** The command's result. */
  end(code: number): void;
}

export function createContext(
  surroundings: Surroundings,
  flags: () => GlobalFlags,
  end: (code: number) => void,
): Context {
  let connection: Connection | undefined;
  let client: Client | undefined;
  return {
    surroundings,
    flags,
    connection: () => connection,
    client() {
      if (connection === undefined) {
        connection = findConnection(flags(), surroundings);
        trustFor(connection);
      }
      const { reason } = flags();
      client ??= createClient({ ...connection, ...(reason !== undefined && { reason }) });
      return client;
    },
    get json() {
      return flags().output === 'json';
    },
    print(data, words) {
      surroundings.stdout.write(`${this.json ? JSON.stringify(data, null, 2) : words()}\n`);
    },
    printLine: (data) => surroundings.stdout.write(`${JSON.stringify(data)}\n`),
    say: (words) => surroundings.stderr.write(`${words}\n`),
    end,
  };
}

type Kind = 'host' | 'vm';

/**
 * Runs `fn`; when the server does not find something, the names it does know are looked through for the one that was meant.
 * @param names what the user wrote, by kind
 */
export async function named<T>(
  context: Context,
  names: Readonly<Partial<Record<Kind, string | undefined>>>,
  fn: () => Promise<T>,
): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    if (!(error instanceof UserError) || userErrorCodes[error.code] !== 'not-found') throw error;
    const hint = await suggestion(context, names).catch(() => undefined);
    throw hint === undefined ? error : new UserError(error.code, error.message, hint, { cause: error });
  }
}

async function suggestion(
  context: Context,
  names: Readonly<Partial<Record<Kind, string | undefined>>>,
): Promise<string | undefined> {
  const lists: Record<Kind, () => Promise<readonly { id: string; name: string }[]>> = {
    vm: () => context.client().listVms(),
    host: () => context.client().listHosts(),
  };
  for (const kind of ['vm', 'host'] as const) {
    const wanted = names[kind];
    if (wanted === undefined) continue;
    const known = await lists[kind]();
    if (known.some(({ id, name }) => id === wanted || name === wanted)) continue;
    const meant = didYouMean(
      wanted,
      known.map(({ name }) => name),
    );
    if (meant !== undefined) return `Did you mean '${meant}'? \`drover ${kind} list\` shows them all.`;
    if (known.length === 0) {
      return kind === 'vm'
        ? 'There are no VMs: `drover vm create` makes one.'
        : 'There are no hosts: start an agent on one.';
    }
    return `\`drover ${kind} list\` shows them all.`;
  }
  return undefined;
}

export interface Interruption {
  readonly signal: AbortSignal;
  /** Gives the signals back. */
  stop(): void;
}

/** Thrown where a wait was given up because of Ctrl-C. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** Ctrl-C and SIGTERM abort the signal; a second one ends the program at once. */
export function interruptible({ surroundings }: Context): Interruption {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) surroundings.exitNow(exitCodes.interrupted);
    controller.abort(new Interrupted('interrupted'));
  };
  const stops = (['SIGINT', 'SIGTERM'] as const).map((name) => surroundings.onSignal(name, onSignal));
  return { signal: controller.signal, stop: () => stops.forEach((stop) => stop()) };
}
