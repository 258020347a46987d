/** Long lists in pages. The cursor is the key of the last one shown, so that what comes and goes meanwhile moves nothing. */
import type { Call } from './handler.ts';

export interface PageQuery {
  readonly limit: number;
  /** The key of the last one on the page before. */
  readonly after?: string | undefined;
}

/**
 * One page; where there is more, the answer says after which key.
 * @param items in the order in which they are shown
 * @param keyOf unique, and never changing for one item
 * @param order of the keys, roughly: by it the place of one that is gone is found
 */
export function pageOf<T>(
  { answer }: Pick<Call, 'answer'>,
  items: readonly T[],
  { limit, after }: PageQuery,
  keyOf: (item: T) => string,
  order: 'ascending' | 'descending',
): T[] {
  const sign = order === 'ascending' ? 1 : -1;
  const isBehind = (key: string): boolean => after === undefined || (key > after ? sign : -sign) > 0;
  const at = after === undefined ? -1 : items.findIndex((item) => keyOf(item) === after);
  const rest = at >= 0 ? items.slice(at + 1) : items.filter((item) => isBehind(keyOf(item)));
  const page = rest.slice(0, limit);
  const last = page.at(-1);
  if (last !== undefined && rest.length > limit) answer.more(keyOf(last));
  return page;
}
