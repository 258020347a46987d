/**
 * The host's part of a guest's network: a tap for each card, on the bridge of its network; and, while guests are sent, a
 * bounded send queue.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
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
  detach(taps: readonly string[]): Promise<void>;
  /** Taps of ours that exist on this host. */
  existing(): string[];
  /** Bounds the send queue of this host (a sysctl of its network namespace) until the returned function is called. */
  boundSendQueue(): () => void;
}

/** Interface names have 15 characters: a hash of the VM's id and the card's number. */
export function tapName(vm: VmId, index: number): string {
  return `${tapPrefix}${createHash('sha256').update(`${vm}/${index}`).digest('hex').slice(0, 12)}`;
}

export function openNetwork(options: { bridges: Readonly<Record<string, string>>; boundSendQueue: boolean }): Network {
  let senders = 0;
  let before: string | undefined;
  return {
    async attach(vm, nics) {
      const taps = nics.map((_, index) => tapName(vm, index));
      for (const [index, nic] of nics.entries()) {
        const tap = taps[index];
        const bridge = options.bridges[nic.network];
        if (tap === undefined || bridge === undefined) {
          throw new UserError(
            'incompatible',
            `This host has no network '${nic.network}'.`,
            `Start its agent with --network ${nic.network}=BRIDGE.`,
          );
        }
        if (!existsSync(`/sys/class/net/${tap}`)) await run('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap']);
        await run('ip', ['link', 'set', 'dev', tap, 'master', bridge, 'up']);
      }
      return taps;
    },
    async detach(taps) {
      for (const tap of taps) {
        if (existsSync(`/sys/class/net/${tap}`)) await run('ip', ['link', 'del', 'dev', tap]);
      }
    },
    existing: () => readdirSync('/sys/class/net').filter((name) => name.startsWith(tapPrefix)),
    boundSendQueue() {
      if (!options.boundSendQueue || !existsSync(lowatPath)) return () => {};
      if (senders++ === 0) {
        before = readFileSync(lowatPath, 'utf8').trim();
        writeFileSync(lowatPath, String(lowatBytes));
      }
      let released = false;
      return () => {
        if (released) return;
        released = true;
        if (--senders === 0 && before !== undefined) writeFileSync(lowatPath, before);
      };
    },
  };
}
