/** Errors across the API: problem+json (RFC 9457), and back into the error a user sees. */
import { z } from 'zod';
import { UserError, userErrorCodes, type UserErrorClass, type UserErrorCode } from '../model/failure.ts';

export const statusOf = {
  usage: 400,
  unauthorized: 401,
  forbidden: 403,
  'not-found': 404,
  conflict: 409,
  refused: 422,
  unavailable: 503,
} as const satisfies Record<UserErrorClass, number>;

/** Codes with a status of their own, where HTTP has one that says more than that of their class. */
const ownStatus: Partial<Record<UserErrorCode, number>> = {
  'method-not-allowed': 405,
  'version-mismatch': 412,
  'too-large': 413,
  'unsupported-media-type': 415,
  'key-reused': 422,
  'too-many-requests': 429,
  internal: 500,
};

export function statusOfCode(code: UserErrorCode): number {
  return ownStatus[code] ?? statusOf[userErrorCodes[code]];
}

export const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.string(),
  detail: z.string(),
  hint: z.string(),
});
export type Problem = z.infer<typeof problem>;

export function problemOf(error: UserError): Problem {
  return {
    type: `https://drover.invalid/errors/${error.code}`,
    title: error.code,
    status: statusOfCode(error.code),
    code: error.code,
    detail: error.message,
    hint: error.hint,
  };
}

/** The user's error out of a reply; codes of a newer server become `unavailable` with their own words kept. */
export function userErrorOf(body: unknown, status: number): UserError {
  const parsed = problem.safeParse(body);
  if (!parsed.success) {
    const words = `The server answered with status ${status}.`;
    return new UserError('unavailable', words, "Look at the server's log.", { cause: parsed.error });
  }
  return new UserError(
    isCode(parsed.data.code) ? parsed.data.code : 'unavailable',
    parsed.data.detail,
    parsed.data.hint,
  );
}

function isCode(text: string): text is UserErrorCode {
  return Object.hasOwn(userErrorCodes, text);
}
