/**
 * In the page this stands for zod (vite.config.ts). The page came from the very server that it asks, so what that answers is as the
 * table says, and checking it field by field took most of the time in which a large fleet was read. Types are checked as ever: they
 * come from the schemas, which are there when the page is built and only then.
 */

function parse(value: unknown) {
  // Only what is no answer of ours at all, such as a proxy's page of errors.
  if (typeof value === 'object' && value !== null) return { success: true, data: value };
  return { success: false, error: new Error('this is no answer of the server') };
}

/** A schema that can be made into any other and believes everything. */
export const z: object = new Proxy(() => {}, {
  get: (_, word) => (word === 'safeParse' ? parse : z),
  apply: () => z,
});
