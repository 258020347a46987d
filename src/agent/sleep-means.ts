/**
 * The kernel's files that put a machine to sleep and say which cards could wake it: /sys/power (Documentation/admin-guide/pm/
 * sleep-states.rst of the kernel) and /sys/class/net.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { messageOf } from '../model/failure.ts';
import type { Ability } from '../model/host.ts';
import { macPattern } from '../model/sleep.ts';
import { sendMagicPackets } from '../runtime/magic-packet.ts';
import type { SleepMeans } from './sleeper.ts';

const noAddress = '00:00:00:00:00:00';

interface SleepFiles {
  /** /sys/power/state, or what stands for it. */
  readonly powerState: string;
  /** /sys/class/net */
  readonly cards: string;
}

export function sleepMeans({ powerState, cards }: SleepFiles): SleepMeans {
  return {
    ability: { off: { ok: true }, suspend: canSuspend(powerState), macs: macsIn(cards) },
    async suspend() {
      const modes = join(dirname(powerState), 'mem_sleep');
      // `deep` is suspend to RAM; what stands there else only idles.
      if (existsSync(modes) && readFileSync(modes, 'utf8').includes('deep')) await writeFile(modes, 'deep');
      await writeFile(powerState, 'mem');
    },
    sendMagic: (macs) => sendMagicPackets(macs),
  };
}

function canSuspend(powerState: string): Ability {
  try {
    const states = readFileSync(powerState, 'utf8').trim().split(/\s+/);
    if (states.includes('mem')) return { ok: true };
    return { ok: false, reason: `${powerState} offers ${states.join(', ') || 'nothing'}, not mem` };
  } catch (error) {
    return { ok: false, reason: `this machine cannot suspend: ${messageOf(error)}` };
  }
}

/** Of real cards only: bridges, taps and the like have no device. */
function macsIn(cards: string): string[] {
  if (!existsSync(cards)) return [];
  return readdirSync(cards).flatMap((name) => {
    if (!existsSync(join(cards, name, 'device'))) return [];
    try {
      const mac = readFileSync(join(cards, name, 'address'), 'utf8').trim();
      return macPattern.test(mac) && mac !== noAddress ? [mac] : [];
    } catch {
      return []; // it was taken out just now
    }
  });
}
