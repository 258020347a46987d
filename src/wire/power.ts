/** A host's power controller over the API: what is set, what is read back. */
import { z } from 'zod';

const passwordFile = z
  .string()
  .regex(/^\//, 'is to be an absolute path')
  .max(4096)
  .describe("file of the server's machine with the password in its first line");
const user = z.string().min(1).max(64);
/** How a host is switched off from outside, as a person says it. */
export const powerBody = z
  .object({
    controller: z.discriminatedUnion('kind', [
      z
        .object({
          kind: z.literal('ipmi'),
          address: z.string().min(1).max(255),
          port: z.number().int().min(1).max(65_535).default(623),
          user,
          passwordFile,
        })
        .strict(),
      z
        .object({
          kind: z.literal('redfish'),
          url: z.string().max(2048).describe('of the system, e.g. https://bmc1/redfish/v1/Systems/1'),
          user,
          passwordFile,
          caFile: passwordFile
            .nullable()
            .default(null)
            .describe("certificate to trust, a file of the server's machine; null: the system's"),
        })
        .strict(),
    ]),
    untested: z.boolean().default(false).describe('store it without reading it once'),
  })
  .strict();
export type PowerBody = z.input<typeof powerBody>;

export const powerView = z.object({
  host: z.string(),
  controller: z.string(),
  state: z.enum(['on', 'off', 'unknown']),
  says: z.string().nullable().describe("the controller's words, where there are any"),
});
export type PowerView = z.infer<typeof powerView>;
