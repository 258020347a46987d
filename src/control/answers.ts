/** Errors as answers: problem+json with a stable code, whatever refused it. Not here: which status a code has (wire/errors.ts). */
import { UserError, messageOf } from '../model/failure.ts';
import { apiPrefix } from '../wire/client.ts';
import { endpoints } from '../wire/endpoints.ts';
import type { Endpoint } from '../wire/endpoints.ts';
import { problemOf, type Problem } from '../wire/errors.ts';

export const bodyLimitBytes = 256 * 1024;
export const problemType = 'application/problem+json';

/** The error as somebody outside sees it; undefined: it is one of ours, which only the log may know. */
export function asUserError(error: unknown): UserError | undefined {
  if (error instanceof UserError) return error;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  if (typeof code !== 'string' || typeof status !== 'number' || status >= 500) return undefined;
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new UserError('too-large', `The body is larger than ${bodyLimitBytes} bytes.`, 'Send less.');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new UserError('unsupported-media-type', 'The body is not JSON.', 'Send `Content-Type: application/json`.');
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new UserError('invalid-input', 'The body is empty.', 'Send {} or leave the Content-Type out.');
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new UserError('invalid-input', 'The path is not properly encoded, or too long.', 'Encode it as a URL.', {
        cause: error,
      });
    default:
      return new UserError(
        'invalid-input',
        `The request cannot be read: ${messageOf(error)}.`,
        'Send one JSON object as the body.',
        { cause: error },
      );
  }
}

export function internalError(): UserError {
  return new UserError('internal', 'The server failed at this request.', "The reason is in the server's log.");
}

/** Headers and body of the answer. */
export function problemAnswer(error: UserError): { body: Problem; headers: Record<string, string> } {
  const headers: Record<string, string> = {};
  if (error.code === 'unauthorized') headers['www-authenticate'] = 'Bearer';
  if (error.retryAfterMs !== undefined) headers['retry-after'] = String(Math.ceil(error.retryAfterMs / 1000));
  return { body: problemOf(error), headers };
}

export function unknownPath(method: string, url: string): UserError {
  const path = url.split('?')[0] ?? url;
  return new UserError(
    'not-found',
    `There is nothing at ${method} ${path.slice(0, 200)}.`,
    `${apiPrefix}/openapi.json lists what there is.`,
  );
}

const paths: readonly { readonly method: string; readonly pattern: RegExp }[] = Object.values<Endpoint>(endpoints).map(
  ({ method, path }) => ({ method, pattern: new RegExp(`^${apiPrefix}${path.replace(/:\w+/g, '[^/]+')}$`) }),
);

/** The answer to what is not even HTTP, written by hand. */
export function notHttp(code: string | undefined): string {
  const error =
    code === 'HPE_HEADER_OVERFLOW'
      ? new UserError('too-large', 'The headers are too large.', 'Send less.')
      : new UserError('invalid-input', 'This is no HTTP request.', 'Use an HTTP client.');
  const problem = problemOf(error);
  const body = JSON.stringify(problem);
  const head = [`HTTP/1.1 ${problem.status} ${problem.title}`, `content-type: ${problemType}`, 'connection: close'];
  return `${head.join('\r\n')}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

/** Which methods there are at this path. */
export function methodsAt(url: string): string[] {
  const path = url.split('?')[0] ?? url;
  return paths.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method);
}

export function wrongMethod(method: string, allowed: readonly string[]): UserError {
  return new UserError(
    'method-not-allowed',
    `${method} is not done here, only ${allowed.join(', ')}.`,
    `${apiPrefix}/openapi.json lists what there is.`,
  );
}
