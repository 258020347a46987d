/**
 * Logs: one JSON object per line on stderr for machines, plain lines where stderr is a terminal. stdout belongs to what a
 * command prints. Fields first, message second; an error goes into the field `error` with its causes.
 */
import { pino } from 'pino';
import type { DestinationStream, Logger } from 'pino';

export type LogFields = Readonly<Record<string, unknown>>;
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A log whose every line also carries `fields` (migration, vm, host, ...). */
  child(fields: LogFields): Log;
}

export interface LogOptions {
  readonly level?: LogLevel;
  readonly fields?: LogFields;
  /** Where JSON lines go instead of stderr. */
  readonly to?: { write(line: string): void };
}

export function createLog({ level = 'info', fields = {}, to }: LogOptions = {}): Log {
  // Written synchronously: the last lines before a crash are the ones that matter.
  const destination: DestinationStream =
    to ?? (process.stderr.isTTY ? plainLines(process.stderr) : pino.destination({ dest: 2, sync: true }));
  const logger = pino(
    {
      level,
      base: fields,
      errorKey: 'error',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  return wrap(logger);
}

export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
};

function wrap(logger: Logger): Log {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => wrap(logger.child(fields)),
  };
}

/** Turns pino's JSON lines into lines for people: time, level, message, then the fields as `name=value`. */
export function plainLines(out: { write(line: string): unknown }): DestinationStream {
  return {
    write(line) {
      const { level, time, msg, error, ...fields } = JSON.parse(line) as Record<string, unknown>;
      const parts = [String(time).slice(11, 23), String(level).padEnd(5), String(msg)];
      for (const [name, value] of Object.entries(fields)) {
        parts.push(`${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
      }
      out.write(`${parts.join(' ')}\n`);
      if (error !== undefined) out.write(`${stackOf(error).replaceAll(/^/gm, '    ')}\n`);
    },
  };
}

function stackOf(error: unknown): string {
  const named = error !== null && typeof error === 'object' && 'stack' in error;
  return named && typeof error.stack === 'string' ? error.stack : JSON.stringify(error);
}
