/** Labels as words of the command line: `key=value` to set and to look for, `key-` to remove. */
import { UserError } from '../model/failure.ts';
import type { LabelChanges } from '../wire/labels.ts';

type Labels = Readonly<Record<string, string>>;

/** For options that may be given several times. */
export function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}

/** @param option that these were given with. @throws UserError invalid-input */
export function parseLabels(texts: readonly string[], option: string): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const equals = text.indexOf('=');
      if (equals > 0) return [text.slice(0, equals), text.slice(equals + 1)];
      const hint = `Write key=value, for example ${option} tier=web.`;
      throw new UserError('invalid-input', `'${text}' is not a label.`, hint);
    }),
  );
}

/** Several may stand in one word, with commas between them. @throws UserError invalid-input */
export function parseSelector(texts: readonly string[]): Record<string, string> {
  return parseLabels(
    texts.flatMap((text) => text.split(',')),
    '--selector',
  );
}

/** @throws UserError invalid-input */
export function parseLabelChanges(texts: readonly string[]): LabelChanges {
  return Object.fromEntries(
    texts.map((text) => {
      const equals = text.indexOf('=');
      if (equals > 0) return [text.slice(0, equals), text.slice(equals + 1)];
      if (equals < 0 && text.length > 1 && text.endsWith('-')) return [text.slice(0, -1), null];
      const hint = 'Write key=value to set one, or key- to remove it: tier=web old-';
      throw new UserError('invalid-input', `'${text}' is no change of a label.`, hint);
    }),
  );
}

export function hasLabels(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

export function labelWords(labels: Labels): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ');
}
