import { expect, test } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import type { Channel } from '../runtime/channel.ts';
import { FakeHost, migration } from './fake-host.ts';
import { TargetLink } from './handover.ts';

test('the way to an agent that is away is tried until it is there or the move is over', async () => {
  const host = await new FakeHost('h1').begin();
  const clock = new TestClock();
  let isThere = false;
  let dialled = 0;
  const channel = (): Channel => {
    let hear: (message: unknown) => void = () => {};
    return {
      send: () => {
        hear({ type: 'joined', migration });
        return true;
      },
      onMessage: (handler) => (hear = handler),
      closed: new Promise<string>(() => {}),
      isOpen: true,
      remote: 'h2',
      close: () => {},
    };
  };
  const dial = async () => {
    dialled++;
    if (!isThere) throw new Error('refused');
    return channel();
  };
  const link = new TargetLink({ ...host.context, clock, dial }, [host.peer], migration, 1);
  void link.keepOpen();
  await clock.advance(60_000);
  expect(dialled).toBeGreaterThan(10);
  isThere = true;
  await clock.advance(3_000);
  expect(link.isOpen).toBe(true);

  const given = new TargetLink(
    { ...host.context, clock, dial: () => Promise.reject(new Error('refused')) },
    [host.peer],
    migration,
    1,
  );
  const over = given.keepOpen();
  given.close();
  await clock.advance(3_000);
  await over;
  await host.end();
});
