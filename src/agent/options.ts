/** Options that agent and guard write alike. */
import { UserError } from '../model/failure.ts';

export const collect = (value: string, before: string[] = []): string[] => [...before, value];

/** NAME=VALUE, again and again. @throws UserError invalid-input */
export function parsePairs(texts: readonly string[], what: string): Record<string, string> {
  const pairs = texts.map((text) => {
    const at = text.indexOf('=');
    if (at < 1 || at === text.length - 1) throw usage(`'${text}' is not a ${what}.`, `Write --${what} NAME=VALUE.`);
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  return Object.fromEntries(pairs);
}

export function usage(message: string, hint: string): UserError {
  return new UserError('invalid-input', message, hint);
}
