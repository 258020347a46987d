/**
 * Passwords are kept as scrypt hashes (RFC 7914; N = 2^15, r = 8, p = 3: one of the settings that OWASP names, 32 MiB and a
 * fraction of a second each). So few are worked out at once that logging in never takes the server's memory or its processors.
 */
import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import type { PasswordHash } from '../model/access.ts';
import { UserError } from '../model/failure.ts';

const settings = { cost: 2 ** 15, blockSize: 8, parallelization: 3 };
const hashBytes = 32;
const atOnce = 2;
const waitingLimit = 32;

/** @param cost less than usual in tests only */
export async function hashPassword(password: string, cost = settings.cost): Promise<PasswordHash> {
  const salt = randomBytes(16);
  const how = { ...settings, cost };
  const hash = await derive(password, salt, how);
  return { kind: 'scrypt', ...how, salt: salt.toString('base64'), hash: hash.toString('base64') };
}

/** Takes the same time whatever is wrong. @param kept null: nobody's password, the answer is no */
export async function passwordMatches(
  password: string,
  kept: PasswordHash | null,
  cost = settings.cost,
): Promise<boolean> {
  const nobodys = { ...settings, cost, salt: '', hash: Buffer.alloc(hashBytes).toString('base64') };
  const { salt, hash, ...how } = kept ?? nobodys;
  const derived = await derive(password, Buffer.from(salt, 'base64'), how);
  return timingSafeEqual(derived, Buffer.from(hash, 'base64')) && kept !== null;
}

type Settings = Pick<PasswordHash, 'cost' | 'blockSize' | 'parallelization'>;

let running = 0;
const waiting: (() => void)[] = [];

async function derive(password: string, salt: Buffer, how: Settings): Promise<Buffer> {
  if (running >= atOnce) {
    if (waiting.length >= waitingLimit) {
      throw new UserError('too-many-requests', 'Too many passwords are being checked.', 'Try again in a few seconds.', {
        retryAfterMs: 5_000,
      });
    }
    await new Promise<void>((resolve) => waiting.push(resolve));
  }
  running++;
  try {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const { cost, blockSize, parallelization } = how;
    const maxmem = 256 * cost * blockSize + 2 ** 20;
    scrypt(password.normalize('NFKC'), salt, hashBytes, { cost, blockSize, parallelization, maxmem }, (error, key) =>
      error ? reject(error) : resolve(key),
    );
    return await promise;
  } finally {
    running--;
    waiting.shift()?.();
  }
}
