/** A BMC's password: the first line of a file on the server's machine. Never stored, never shown, never on a command line. */
import { readFile } from 'node:fs/promises';
import { messageOf } from '../../model/failure.ts';

const longestBytes = 1024;

/** @throws Error when there is no such file, or it holds no password */
export async function readPassword(path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new Error(`the password file cannot be read: ${messageOf(error)}`, { cause: error });
  }
  const line = text.split(/\r?\n/, 1)[0] ?? '';
  if (line !== '' && text.length <= longestBytes) return line;
  throw new Error(`${path} holds no password: it is to have one line with it`);
}
