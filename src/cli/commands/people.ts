/** `drover user …`, `drover token …` and `drover audit`: who may use the API, and what they did. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Argument, type Command } from 'commander';
import { roles, type Role } from '../../model/access.ts';
import { UserError, messageOf } from '../../model/failure.ts';
import { formatMs, parseDurationMs } from '../../model/units.ts';
import type { AuditView, TokenView, UserView } from '../../wire/people.ts';
import { Interrupted, type Context } from '../context.ts';
import { table } from '../table.ts';

interface PasswordFlags {
  readonly passwordFile?: string;
  readonly generatePassword?: true;
  readonly login?: boolean;
}

const roleWords = 'viewer looks, operator acts, admin says who may';
const roleArgument = (): Argument => new Argument('<role>', roleWords).choices(roles);

export function addPeople(program: Command, context: Context): void {
  addUsers(program, context);
  addTokens(program, context);
  addAudit(program, context);
}

function addUsers(program: Command, context: Context): void {
  const user = program
    .command('user')
    .description('people who may use the API and the dashboard')
    .addHelpText('after', '\nExamples:\n  $ drover user add alice --role operator\n  $ drover user list');
  withPassword(
    user
      .command('add <name>')
      .description('add a user; the password is asked for, or read from stdin')
      .requiredOption('--role <role>', roleWords)
      .option('--no-login', 'no password: the user has tokens only'),
  )
    .addHelpText('after', '\nExample:\n  $ drover user add alice --role operator')
    .action(async (name: string, flags: PasswordFlags & { role: string }) => {
      const { password, made } = flags.login === false ? noPassword : await passwordFor(context, name, flags);
      const added = await context.client().createUser({ body: { name, role: roleOf(flags.role), password } });
      context.print({ ...added, ...(made && { password }) }, () => `${wordsOf(added)}${madeWords(made, password)}`);
    });
  user
    .command('list')
    .description('all users')
    .addHelpText('after', '\nExample:\n  $ drover user list')
    .action(async () => {
      const users = await context.client().listUsers();
      context.print(users, () => (users.length === 0 ? 'there are no users, only tokens' : userTable(users)));
    });
  user
    .command('remove <name>')
    .description('remove a user with all sessions and tokens')
    .addHelpText('after', '\nExample:\n  $ drover user remove alice')
    .action(async (name: string) => {
      const { removed, tokensRevoked } = await context.client().removeUser({ params: { user: name } });
      const tokens = tokensRevoked.length === 0 ? '' : `; revoked: ${tokensRevoked.join(', ')}`;
      context.print({ removed, tokensRevoked }, () => `${removed} is removed${tokens}`);
    });
  user
    .command('set-role <name>')
    .description('what a user may do, from now on')
    .addArgument(roleArgument())
    .addHelpText('after', '\nExample:\n  $ drover user set-role alice admin')
    .action(async (name: string, role: string) => {
      const changed = await context.client().updateUser({ params: { user: name }, body: { role: roleOf(role) } });
      context.print(changed, () => wordsOf(changed));
    });
  withPassword(
    user
      .command('set-password <name>')
      .description('a new password; open sessions end')
      .option('--no-login', 'take the password away: the user has tokens only'),
  )
    .addHelpText('after', '\nExample:\n  $ drover user set-password alice --generate-password')
    .action(async (name: string, flags: PasswordFlags) => {
      const { password, made } = flags.login === false ? noPassword : await passwordFor(context, name, flags);
      const changed = await context.client().updateUser({ params: { user: name }, body: { password } });
      context.print({ ...changed, ...(made && { password }) }, () => `${wordsOf(changed)}${madeWords(made, password)}`);
    });
  addChangePassword(user, context);
}

/** The own one, by who knows the old one: the only thing here that is not the admin's. */
function addChangePassword(user: Command, context: Context): void {
  withPassword(
    user
      .command('change-password')
      .description('your own password, with the old one; your sessions in browsers end')
      .option('--old-password-file <file>', 'read the old one from the first line of this file'),
  )
    .addHelpText('after', '\nExample:\n  $ drover user change-password')
    .action(async (flags: PasswordFlags & { oldPasswordFile?: string }) => {
      const client = context.client();
      const { user: name } = await client.getMe();
      const oldPassword = await oldPasswordFor(context, flags.oldPasswordFile);
      const { password: newPassword, made } = await passwordFor(context, name ?? 'nobody', flags, 'New password');
      const me = await client.changeMyPassword({ body: { oldPassword, newPassword } });
      const shown = { ...me, ...(made && { password: newPassword }) };
      context.print(shown, () => `${me.name} has a new password${madeWords(made, newPassword)}`);
    });
}

function addTokens(program: Command, context: Context): void {
  const token = program
    .command('token')
    .description('what programs use the API with')
    .addHelpText('after', '\nExamples:\n  $ drover token create prometheus --role viewer\n  $ drover token list');
  token
    .command('create <name>')
    .description('make a token; it is shown once')
    .requiredOption('--role <role>', roleWords)
    .option('--user <name>', 'whose it is: it can do no more than this user, and goes with them')
    .option('--expires-in <time>', 'it ends by itself, e.g. 90d (else when it is revoked)')
    .addHelpText('after', '\nExample:\n  $ drover token create prometheus --role viewer > /etc/prometheus/drover.token')
    .action(async (name: string, flags: { role: string; user?: string; expiresIn?: string }) => {
      const expiresInMs = flags.expiresIn === undefined ? null : parseDurationMs(flags.expiresIn);
      const body = { name, role: roleOf(flags.role), user: flags.user ?? null, expiresInMs };
      const made = await context.client().createToken({ body });
      if (!context.json) context.say(`${made.name} (${made.role}); keep it well, it is not shown again:`);
      context.print(made, () => made.token);
    });
  token
    .command('list')
    .description('all tokens, without their secrets')
    .addHelpText('after', '\nExample:\n  $ drover token list')
    .action(async () => {
      const tokens = await context.client().listTokens();
      const now = context.surroundings.clock.now();
      const none = "there are no tokens but the one in the server's state directory";
      context.print(tokens, () => (tokens.length === 0 ? none : tokenTable(tokens, now)));
    });
  token
    .command('revoke <token>')
    .description('a token by its name or id opens nothing any more')
    .addHelpText('after', '\nExample:\n  $ drover token revoke prometheus')
    .action(async (ref: string) => {
      const revoked = await context.client().revokeToken({ params: { token: ref } });
      context.print(revoked, () => `${revoked.name} is revoked`);
    });
}

interface AuditFlags {
  readonly by?: string;
  readonly did?: string;
  readonly to?: string;
  readonly failed?: true;
  readonly since?: string;
  readonly limit: string;
}

function addAudit(program: Command, context: Context): void {
  program
    .command('audit')
    .description('who did what, to what, when and why, newest first')
    .option('--by <name>', 'only what this user or token did')
    .option('--did <operation>', 'only this operation, e.g. migrateVm')
    .option('--to <what>', 'only what was done to this, e.g. web1')
    .option('--failed', 'only what was refused or failed')
    .option('--since <time>', 'not older than this, e.g. 24h')
    .option('--limit <count>', 'at most so many', '50')
    .addHelpText('after', '\nExamples:\n  $ drover audit --by alice --since 24h\n  $ drover audit --to web1')
    .action(async (flags: AuditFlags) => {
      const limit = Number(flags.limit);
      if (!Number.isInteger(limit) || limit < 1) {
        throw new UserError('invalid-input', `--limit ${flags.limit} is no count.`, 'Write --limit 50.');
      }
      const now = context.surroundings.clock.now();
      const query = {
        by: flags.by,
        did: flags.did,
        to: flags.to,
        outcome: flags.failed === true ? 'failed' : undefined,
        since: flags.since === undefined ? undefined : Math.max(0, now - parseDurationMs(flags.since)),
        limit: Math.min(limit, 1000),
      };
      const entries = await context.client().listAudit({ query });
      context.print(entries, () => (entries.length === 0 ? 'nothing of that kind is on record' : auditTable(entries)));
    });
}

const noPassword = { password: null, made: false } as const;

function withPassword(command: Command): Command {
  return command
    .option('--password-file <file>', 'read it from the first line of this file')
    .option('--generate-password', 'make one and show it once');
}

async function oldPasswordFor(context: Context, file: string | undefined): Promise<string> {
  const { stdin, cwd } = context.surroundings;
  if (file !== undefined) return firstLineOf(resolve(cwd, file));
  const line = stdin.isTTY ? await hiddenLine(context, 'Old password: ') : await stdin.readLine();
  if (line !== undefined && line !== '') return line;
  const hint = 'Write the old one and the new one to stdin, a line each, or use --old-password-file.';
  throw new UserError('invalid-input', 'The old password was not given.', hint);
}

async function passwordFor(
  context: Context,
  name: string,
  flags: PasswordFlags,
  word = 'Password',
): Promise<{ password: string; made: boolean }> {
  if (flags.generatePassword === true) return { password: randomBytes(15).toString('base64url'), made: true };
  if (flags.passwordFile !== undefined) {
    return { password: firstLineOf(resolve(context.surroundings.cwd, flags.passwordFile)), made: false };
  }
  const { stdin } = context.surroundings;
  if (!stdin.isTTY) {
    const line = await stdin.readLine();
    if (line !== undefined && line !== '') return { password: line, made: false };
    throw new UserError(
      'invalid-input',
      'No password was given.',
      'Write it to stdin, or use --password-file or --generate-password.',
    );
  }
  const password = await hiddenLine(context, `${word} of ${name}: `);
  if ((await hiddenLine(context, 'Once more: ')) === password) return { password, made: false };
  throw new UserError('invalid-input', 'The two are not the same.', 'Nothing was changed. Try again.');
}

function firstLineOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').split('\n')[0] ?? '';
  } catch (error) {
    throw new UserError('invalid-input', `${file} cannot be read: ${messageOf(error)}.`, 'Name another file.', {
      cause: error,
    });
  }
}

/** A line from the terminal that is not shown while it is written. */
async function hiddenLine({ surroundings: { stdin, stderr } }: Context, prompt: string): Promise<string> {
  stdin.setRaw(true);
  stderr.write(prompt);
  let line = '';
  try {
    for await (const bytes of stdin) {
      for (const char of Buffer.from(bytes).toString('utf8')) {
        if (char === '\r' || char === '\n') return line;
        if (char === '\u0003' || char === '\u0004') throw new Interrupted('interrupted');
        line = char === '\u007F' || char === '\b' ? line.replace(/.$/u, '') : line + char;
      }
    }
    return line;
  } finally {
    stdin.setRaw(false);
    stderr.write('\n');
  }
}

function roleOf(text: string): Role {
  const found = roles.find((role) => role === text);
  if (found) return found;
  throw new UserError('invalid-input', `There is no role '${text}'.`, `Use ${roles.join(', ')}: ${roleWords}.`);
}

function wordsOf({ name, role, canLogIn }: UserView): string {
  return `${name} is ${role}${canLogIn ? '' : ', and cannot log in'}`;
}

function madeWords(made: boolean, password: string | null): string {
  return made ? `\npassword, not shown again: ${password}` : '';
}

function userTable(users: readonly UserView[]): string {
  return table(
    ['NAME', 'ROLE', 'LOGIN', 'SESSIONS', 'TOKENS', 'SINCE'],
    users.map(({ name, role, canLogIn, sessions, tokens, createdAt }) => [
      name,
      role,
      canLogIn ? 'password' : 'no',
      String(sessions),
      String(tokens),
      timeOf(createdAt),
    ]),
  );
}

function tokenTable(tokens: readonly TokenView[], now: number): string {
  return table(
    ['NAME', 'ROLE', 'USER', 'EXPIRES', 'MADE', 'BY', 'ID'],
    tokens.map(({ id, name, role, user, expiresAt, createdAt, createdBy }) => [
      name,
      role,
      user ?? '-',
      expiresAt === null ? 'never' : `in ${formatMs(Math.max(0, expiresAt - now))}`,
      timeOf(createdAt),
      createdBy,
      id,
    ]),
  );
}

function auditTable(entries: readonly AuditView[]): string {
  return table(
    ['WHEN', 'WHO', 'DID', 'TO', 'OUTCOME', 'WHY'],
    entries.map(({ at, by, token, did, to, outcome, because }) => [
      timeOf(at),
      token === null || by === `token:${token}` ? by : `${by} (${token})`,
      did,
      to ?? '-',
      outcome,
      because ?? '-',
    ]),
  );
}

function timeOf(at: number): string {
  return new Date(at).toISOString().slice(0, 19).replace('T', ' ');
}
