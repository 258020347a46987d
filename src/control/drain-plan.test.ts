import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UserError } from '../model/failure.ts';
import type { HostRecord, RoomRecord } from '../model/host.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { VmRecord } from '../model/vm.ts';
import { mayBegin, planMoves, type Ground, type MovesPlan } from './drain-plan.ts';

// The casts: only what a plan looks at is there.
const hostId = (n: number) => `h${n}` as HostId;
const aVm = (n: number, memoryMiB: number, priority: number): VmRecord =>
  ({
    id: `v${n}` as VmId,
    name: `v${n}`,
    host: hostId(0),
    priority,
    spec: { memoryMiB },
    cannotMoveLive: null,
  }) as VmRecord;

const fleets = fc.record({
  free: fc.array(fc.integer({ min: 0, max: 64 }), { minLength: 1, maxLength: 6 }),
  vms: fc.array(fc.tuple(fc.integer({ min: 1, max: 32 }), fc.integer({ min: 0, max: 3 })), { maxLength: 12 }),
  movesAtOnce: fc.integer({ min: 1, max: 5 }),
  movesPerPeer: fc.integer({ min: 1, max: 3 }),
});

function planned({ free, vms, movesAtOnce, movesPerPeer }: typeof fleets extends fc.Arbitrary<infer T> ? T : never) {
  const hosts = free.map((_, n) => ({ id: hostId(n + 1), name: `h${n + 1}` }) as HostRecord);
  const rooms = new Map<HostId, RoomRecord>(
    free.map((capacityMiB, n) => [
      hostId(n + 1),
      { schema: 1, host: hostId(n + 1), capacityMiB, guestsMiB: {}, reservationsMiB: {} },
    ]),
  );
  const freeOf = (host: HostRecord, now: ReadonlyMap<HostId, RoomRecord>): number => {
    const room = now.get(host.id)!;
    return room.capacityMiB - roomUsedMiB(room);
  };
  const ground: Ground = {
    drained: hostId(0),
    rooms,
    movesAtOnce,
    movesPerPeer,
    allowCold: false,
    costOf: ({ spec }) => ({ bytes: spec.memoryMiB, transferMs: spec.memoryMiB * 100, fixedMs: 50 }),
    targetsOf: (vm, _technique, _to, now) => {
      const able = hosts
        .filter((host) => freeOf(host, now) >= vm.spec.memoryMiB)
        .toSorted((a, b) => freeOf(b, now) - freeOf(a, now));
      if (able.length === 0) throw new UserError('no-room', `no room for ${vm.name}`, '');
      return able;
    },
  };
  const wanted = vms.map(([memoryMiB, priority], n) => ({ vm: aVm(n, memoryMiB, priority), to: null }));
  return { plan: planMoves(wanted, ground), ground, wanted };
}

const during = ({ moves }: MovesPlan, at: number) =>
  moves.filter(({ startsAtMs, ms }) => startsAtMs <= at && at < startsAtMs + ms);

test('a plan moves each VM once or says why not, and takes no more of a host than is free', () => {
  fc.assert(
    fc.property(fleets, (fleet) => {
      const { plan, wanted } = planned(fleet);
      const named = [...plan.moves, ...plan.cannot].map(({ vm }) => vm.name);
      expect(named.toSorted()).toEqual(wanted.map(({ vm }) => vm.name).toSorted());
      for (const [n, free] of fleet.free.entries()) {
        const taken = plan.moves
          .filter(({ to }) => to === hostId(n + 1))
          .reduce((sum, { vm }) => sum + vm.spec.memoryMiB, 0);
        expect(taken).toBeLessThanOrEqual(free);
      }
      for (const { says, next } of plan.cannot) expect([says === '', next === '']).toEqual([false, false]);
    }),
  );
});

test('at no moment of a plan more moves run than may, in all and with one other host, and the drain waits for nobody', () => {
  fc.assert(
    fc.property(fleets, (fleet) => {
      const { plan, ground } = planned(fleet);
      for (const { startsAtMs } of plan.moves) {
        const running = during(plan, startsAtMs);
        expect(running.length).toBeLessThanOrEqual(ground.movesAtOnce);
        for (const { to } of running) {
          expect(running.filter((other) => other.to === to).length).toBeLessThanOrEqual(ground.movesPerPeer);
        }
        if (startsAtMs > 0) expect(during(plan, startsAtMs - 1).length).toBeGreaterThan(0);
      }
    }),
  );
});

test('where all may go anywhere the more important never begins after the less important', () => {
  fc.assert(
    fc.property(fleets, (fleet) => {
      const { plan } = planned({ ...fleet, movesPerPeer: 64 });
      const priorities = plan.moves.map(({ vm }) => vm.priority);
      expect(priorities).toEqual(priorities.toSorted((a, b) => b - a));
    }),
  );
});

test('a move begins when both of its hosts have a place, whichever of them is drained', () => {
  const [a, b, c, d] = [1, 2, 3, 4].map(hostId) as [HostId, HostId, HostId, HostId];
  const limits = { drained: a, movesAtOnce: 2, movesPerPeer: 1 };
  expect(mayBegin({ source: a, target: b }, [], limits)).toBe(true);
  expect(mayBegin({ source: a, target: b }, [{ source: c, target: b }], limits)).toBe(false);
  expect(mayBegin({ source: b, target: a }, [{ source: c, target: a }], limits)).toBe(true);
  const two = [
    { source: c, target: a },
    { source: a, target: d },
  ];
  expect(mayBegin({ source: a, target: b }, two, limits)).toBe(false);
});
