/** The power controllers of simulated hosts: they switch what they say, after a while, unless nobody reaches them. */
import type { OpenPower, PowerReading } from '../control/power/power.ts';
import type { SimHost } from './host.ts';
import type { World } from './world.ts';

/** From the order until it reads as done. */
const switchingMs = 1500;
const answerMs = 100;
const giveUpMs = 5000;
const onAgainMs = 40_000;
const shutDownMs = 4000;

/** @param spec of the host: its `address` is what it was set to */
export function simulatedPower(world: World): OpenPower {
  return (spec) => {
    const address = 'address' in spec ? spec.address : spec.url;
    const host = world.hosts.find(({ bmcAddress }) => bmcAddress === address);
    const after = (ms: number) => new Promise<void>((resolve) => world.timeline.after(ms, resolve));
    const ask = async (switchIt: (host: SimHost) => void): Promise<PowerReading> => {
      if (host === undefined || !host.bmcAnswers) {
        await after(giveUpMs);
        return { state: 'unknown', says: 'no answer' };
      }
      await after(answerMs);
      const before = host.hasPower;
      switchIt(host);
      if (host.hasPower !== before) await after(switchingMs);
      return { state: host.hasPower ? 'on' : 'off' };
    };
    return {
      read: () => ask(() => {}),
      off: () =>
        ask((of) => {
          of.powerOff();
          // Somebody comes by and switches it on again.
          world.timeline.after(onAgainMs, () => of.powerOn());
        }),
      on: () => ask((of) => of.powerOn()),
      shutDown: () =>
        ask((of) => {
          // Its system takes its time, if there is one that hears it. Only hosts that are sent to sleep are shut down.
          const { bootId, hasPower } = of;
          world.timeline.after(shutDownMs, () => {
            if (!hasPower || of.bootId !== bootId) return;
            if (of.hasPower) world.checks.goesToSleep(of);
            of.powerOff();
          });
        }),
    };
  };
}
