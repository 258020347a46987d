/**
 * The host's part of a guest's network: a tap for each card, on the bridge of its network; and, while guests are sent, a
 * bounded send queue.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import type { VmId } from '../model/ids.ts';
import { UserError } from '../model/failure.ts';
import type { NicSpec } from '../model/vm.ts';

const run = promisify(execFile);
const tapPrefix = 'dvt';
const lowatPath = '/proc/sys/net/ipv4/tcp_notsent_lowat';
/** A third of the blackout for nothing: what is written but not sent delays the last pages and every fault. */
const lowatBytes = 65_536;

export interface Network {
  /** Makes one tap per card and puts it on its bridge. Done twice, it is the same. @returns their names */
  attach(vm: VmId, nics: readonly NicSpec[]): Promise<string[]>;
  /** Never fails: the news of a guest's end does not wait for its tap. What is left is swept at the next start. */
  detach(taps: readonly string[]): Promise<void>;
  /** Taps of ours that exist on this host. */
  existing(): string[];
  /** Bounds the send queue of this host (a sysctl of its network namespace) until the returned function is called. */
  boundSendQueue(): () => void;
  /** Gives the host its own value back, whoever still sends: the agent ends. */
  restoreSendQueue(): void;
}

/** Several changes by one process: a guest is waited for while they are made. @throws Error with what `ip` said */
async function ipBatch(lines: readonly string[]): Promise<void> {
  const done = run('ip', ['-batch', '-']);
  done.child.stdin?.end(`${lines.join('\n')}\n`);
  await done;
}

/** What the interface with this address says it carries; undefined where it does not say, as most virtual ones. */
export function interfaceBytesPerSecond(address: string): number | undefined {
  const found = Object.entries(networkInterfaces()).find(([, held]) => held?.some((each) => each.address === address));
  if (!found) return undefined;
  try {
    const megabits = Number(readFileSync(`/sys/class/net/${found[0]}/speed`, 'utf8'));
    return megabits > 0 ? megabits * 125_000 : undefined;
  } catch {
    return undefined; // the kernel refuses to say while it is down
  }
}

/** Interface names have 15 characters: a hash of the VM's id and the card's number. */
export function tapName(vm: VmId, index: number): string {
  return `${tapPrefix}${createHash('sha256').update(`${vm}/${index}`).digest('hex').slice(0, 12)}`;
}

export function openNetwork(options: {
  bridges: Readonly<Record<string, string>>;
  boundSendQueue: boolean;
  /** Remembers the send queue's bound as it was. */
  memoPath: string;
  onTrouble: (what: string, error: unknown) => void;
}): Network {
  let senders = 0;
  const { memoPath } = options;
  // Written down before it is changed: an agent that is killed while it sends leaves the host as it found it, later.
  const bound = () => {
    if (!existsSync(memoPath)) writeFileSync(memoPath, readFileSync(lowatPath, 'utf8').trim());
    writeFileSync(lowatPath, String(lowatBytes));
  };
  const restore = () => {
    if (!existsSync(memoPath)) return;
    writeFileSync(lowatPath, readFileSync(memoPath, 'utf8'));
    rmSync(memoPath);
  };
  /** A shorter blackout is worth trying for; no move fails for want of it. */
  const trying = (change: () => void) => {
    try {
      change();
    } catch (error) {
      options.onTrouble(lowatPath, error);
    }
  };
  trying(restore);
  return {
    async attach(vm, nics) {
      const taps = nics.map((_, index) => tapName(vm, index));
      // All networks first: a guest that cannot have them all leaves no tap behind.
      for (const nic of nics) {
        const bridge = options.bridges[nic.network];
        if (bridge === undefined) {
          throw new UserError(
            'incompatible',
            `This host has no network '${nic.network}'.`,
            `Start its agent with --network ${nic.network}=BRIDGE.`,
          );
        }
      }
      const lines = taps.flatMap((tap, index) => [
        ...(existsSync(`/sys/class/net/${tap}`) ? [] : [`tuntap add dev ${tap} mode tap`]),
        `link set dev ${tap} master ${options.bridges[nics[index]?.network ?? '']} up`,
      ]);
      if (lines.length > 0) await ipBatch(lines);
      return taps;
    },
    async detach(taps) {
      for (const tap of taps) {
        if (!existsSync(`/sys/class/net/${tap}`)) continue;
        await run('ip', ['link', 'del', 'dev', tap]).catch((error: unknown) => options.onTrouble(tap, error));
      }
    },
    existing: () => readdirSync('/sys/class/net').filter((name) => name.startsWith(tapPrefix)),
    boundSendQueue() {
      if (!options.boundSendQueue || !existsSync(lowatPath)) return () => {};
      if (senders++ === 0) trying(bound);
      let released = false;
      return () => {
        if (released) return;
        released = true;
        if (--senders === 0) trying(restore);
      };
    },
    restoreSendQueue: () => trying(restore),
  };
}
