import { describe, expect, it } from 'vitest';
import { TestClock } from '../../runtime/clock.ts';
import { controllerOver, OrderRefused, settleMs, type Bmc, type OpenPower, type PowerReading } from './power.ts';

const never = new AbortController().signal;

/** Lets virtual time pass until the promise settles. */
async function within<T>(clock: TestClock, promise: Promise<T>, limitMs = 60_000): Promise<T> {
  let done = false;
  const mark = () => void (done = true);
  promise.then(mark, mark);
  for (let passedMs = 0; !done; passedMs += 50) {
    if (passedMs > limitMs) throw new Error(`not settled within ${limitMs} ms`);
    await clock.advance(50);
  }
  return promise;
}

function bmc(behaviour: Partial<Bmc> & { readings?: PowerReading[] }): Bmc & { orders: string[] } {
  const orders: string[] = [];
  const readings = [...(behaviour.readings ?? [])];
  let last: PowerReading = { state: 'on' };
  return {
    orders,
    read: behaviour.read ?? (async () => (last = readings.shift() ?? last)),
    order: async (wanted, signal) => {
      orders.push(wanted);
      await behaviour.order?.(wanted, signal);
    },
  };
}

describe('a power controller', () => {
  it('has switched off when it reads off, however long it read on before', async () => {
    const clock = new TestClock();
    const readings: PowerReading[] = [{ state: 'on' }, { state: 'unknown', says: 'PoweringOff' }, { state: 'off' }];
    const fake = bmc({ readings });
    expect(await within(clock, controllerOver(fake, clock).off(never))).toEqual({ state: 'off' });
    expect(fake.orders).toEqual(['off']);
  });

  it('says on when the BMC said ok and nothing happened', async () => {
    const clock = new TestClock();
    const startedAt = clock.monotonic();
    expect(await within(clock, controllerOver(bmc({}), clock).off(never))).toEqual({ state: 'on' });
    expect(clock.monotonic() - startedAt).toBeLessThanOrEqual(settleMs + 250);
  });

  it('does not ask again what was refused, and tells the refusal beside the power', async () => {
    const clock = new TestClock();
    const fake = bmc({
      order: async () => {
        throw new OrderRefused('insufficient privilege');
      },
    });
    const reading = await within(clock, controllerOver(fake, clock).off(never));
    expect(reading).toEqual({ state: 'on', says: 'insufficient privilege' });
    expect(fake.orders).toEqual(['off']);
  });

  it('gives an order again that may have been lost', async () => {
    const clock = new TestClock();
    let state: 'on' | 'off' = 'on';
    const fake = bmc({
      read: async () => ({ state }),
      order: async () => {
        if (fake.orders.length === 1) throw new Error('timed out');
        state = 'off';
      },
    });
    expect(await within(clock, controllerOver(fake, clock).off(never))).toEqual({ state: 'off' });
    expect(fake.orders).toEqual(['off', 'off']);
  });

  it('takes an order that failed for done when the power reads as wanted', async () => {
    const clock = new TestClock();
    const fake = bmc({
      readings: [{ state: 'off' }],
      order: async () => {
        throw new Error('no answer');
      },
    });
    expect(await within(clock, controllerOver(fake, clock).off(never))).toEqual({ state: 'off' });
  });

  it('knows nothing of a BMC that hangs, and says so in time', async () => {
    const clock = new TestClock();
    const hang = () => new Promise<never>(() => {});
    const controller = controllerOver(bmc({ read: hang, order: hang }), clock);
    const reading = await within(clock, controller.off(never), settleMs + 10_000);
    expect(reading.state).toBe('unknown');
    expect(reading.says).toContain('no answer');
  });

  it('stops with the signal of who asked', async () => {
    const clock = new TestClock();
    const stop = new AbortController();
    const asked = controllerOver(bmc({}), clock).off(stop.signal);
    asked.catch(() => {});
    await clock.advance(1000);
    stop.abort(new Error('enough'));
    await expect(within(clock, asked)).rejects.toThrow('enough');
  });

  it('switches on the same way', async () => {
    const clock = new TestClock();
    const fake = bmc({ readings: [{ state: 'off' }, { state: 'on' }] });
    const open: OpenPower = () => controllerOver(fake, clock);
    const spec = { kind: 'ipmi', address: '192.0.2.1', port: 623, user: 'admin', passwordFile: '/none' } as const;
    expect(await within(clock, open(spec).on(never))).toEqual({ state: 'on' });
    expect(fake.orders).toEqual(['on']);
  });
});
