/** When a silent host is held for dead: each rule, and the laws that hold whatever is known. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { LeaseSeen } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';
import { aliveWithinMs, leaseMarginMs, verdicts } from './fencing.ts';
import type { FleetKnown, HostKnown, PowerKnown, Verdict } from './fencing.ts';

// The casts: ids are opaque strings, any will do here.
const idOf = (n: number) => `host_${n}` as HostId;
const leaseTimeMs = 10_000;

const host = (n: number, changes: Partial<HostKnown> = {}): HostKnown => ({
  id: idOf(n),
  name: `h${n}`,
  silentMs: null,
  fenced: false,
  asleep: false,
  bootId: `boot${n}`,
  power: { kind: 'none' },
  stakes: [{ vmName: 'web1', poolIds: ['pool1'] }],
  sightings: [],
  taken: [],
  failedWitnesses: [],
  watchdog: true,
  ...changes,
});
const seen = (n: number, changes: Partial<LeaseSeen> = {}, witness = 2) => ({
  witness: idOf(witness),
  witnessName: `h${witness}`,
  lease: {
    host: `h${n}`,
    poolId: 'pool1',
    state: 'held' as const,
    bootId: `boot${n}`,
    leaseTimeMs,
    unchangedMs: 4_000,
    ...changes,
  },
});
const ranOut = leaseTimeMs + leaseMarginMs + 1;
const fleet = (lost: HostKnown, changes: Partial<FleetKnown> = {}): FleetKnown => ({
  hosts: [lost, host(2), host(3)],
  lookingForMs: 60_000,
  held: null,
  trustGuard: false,
  ...changes,
});
const silent = (changes: Partial<HostKnown> = {}) => host(1, { silentMs: 3_200, ...changes });
const on = (lost: HostKnown, changes: Partial<FleetKnown> = {}): Verdict => {
  const verdict = verdicts(fleet(lost, changes)).get(lost.id);
  if (verdict === undefined) throw new Error('no verdict');
  return verdict;
};
const waits = (code: string, person?: boolean) => ({ do: 'wait', code, ...(person === undefined ? {} : { person }) });

describe('a silent host', () => {
  test('is left alone where it reports, is fenced, or has nothing to start elsewhere', () => {
    expect(on(host(1))).toEqual({ do: 'nothing' });
    expect(on(silent({ fenced: true }))).toEqual({ do: 'nothing' });
    expect(on(silent({ stakes: [] }))).toEqual({ do: 'nothing' });
  });

  test('whose lease was renewed a moment ago is alive, whatever power controller it has', () => {
    const alive = silent({ sightings: [seen(1, { unchangedMs: 900 })], power: { kind: 'unasked' } });
    expect(on(alive)).toMatchObject(waits('alive'));
    // One witness of two is enough.
    expect(on({ ...alive, sightings: [seen(1), seen(1, { unchangedMs: 2_000 }, 3)] })).toMatchObject(waits('alive'));
  });

  test('whose lease stands still is switched off at once, and fenced when it reads off', () => {
    const still = silent({ sightings: [seen(1)], power: { kind: 'unasked' } });
    expect(on(still)).toEqual({ do: 'switch-off' });
    expect(on({ ...still, power: { kind: 'asking', before: null } })).toMatchObject(waits('power'));
    expect(on({ ...still, power: { kind: 'off' } })).toMatchObject({ do: 'fence', proof: 'power-off' });
  });

  test('without a lease is only read first: an agent that is down must not cost its guests', () => {
    const blind = silent({ power: { kind: 'unasked' } });
    expect(on(blind)).toEqual({ do: 'read-power' });
    expect(on({ ...blind, power: { kind: 'off' } })).toMatchObject({ do: 'fence', proof: 'power-off' });
    expect(on({ ...blind, silentMs: 31_000 })).toEqual({ do: 'switch-off' });
  });

  test('whose controller does not read off is tried again after a while, and by its lease meanwhile', () => {
    const stuck: PowerKnown = { kind: 'not-off', says: 'it reads on', offTries: 1, agoMs: 1_000 };
    expect(on(silent({ power: stuck }))).toMatchObject({
      ...waits('power'),
      because: expect.stringContaining('reads on'),
    });
    expect(on(silent({ power: { ...stuck, agoMs: 6_000 }, silentMs: 40_000 }))).toEqual({ do: 'switch-off' });
    const dead = silent({ power: stuck, sightings: [seen(1, { unchangedMs: ranOut })] });
    expect(on(dead)).toMatchObject({ do: 'take-lease', witness: idOf(2), poolId: 'pool1', bootId: 'boot1' });
  });

  test('whose controller was told in vain twice waits for a person, unless its lease runs out, and is tried again', () => {
    const before = { says: 'no answer', offTries: 2 };
    const stuck: PowerKnown = { kind: 'not-off', ...before, agoMs: 1_000 };
    const words = expect.stringMatching(/does not read off: no answer; .*no lease/);
    expect(on(silent({ power: stuck }))).toMatchObject({ ...waits('power', true), because: words });
    expect(on(silent({ power: { kind: 'asking', before } }))).toMatchObject(waits('power', true));
    const again = silent({ power: { ...stuck, agoMs: 6_000 }, silentMs: 40_000 });
    expect(on(again)).toMatchObject({ ...waits('power', true), meanwhile: 'switch-off' });
    const runs = { ...again, sightings: [seen(1, { unchangedMs: 5_000 })] };
    expect(on(runs)).toMatchObject({ ...waits('lease-runs'), meanwhile: 'switch-off' });
    const bare = silent({ power: stuck, watchdog: false, sightings: [seen(1, { unchangedMs: ranOut })] });
    expect(on(bare)).toMatchObject(waits('guard-not-trusted', true));
    const taken = { ...again, sightings: [seen(1, { state: 'taken' as const })] };
    expect(on(taken)).toMatchObject({ do: 'fence', proof: 'lease-taken' });
  });

  test('has its lease taken by whoever has watched it longest, once all see that it ran out, and is fenced then', () => {
    const two = (a: number, b: number) =>
      silent({ sightings: [seen(1, { unchangedMs: a }), seen(1, { unchangedMs: b }, 3)] });
    expect(on(two(ranOut, 5_000))).toMatchObject(waits('lease-runs'));
    expect(on(two(ranOut, ranOut + 10))).toMatchObject({ do: 'take-lease', witness: idOf(3) });
    expect(on({ ...two(ranOut, ranOut + 10), failedWitnesses: [idOf(3)] })).toMatchObject({ witness: idOf(2) });
    expect(on({ ...two(ranOut, ranOut), taken: ['pool1'] })).toMatchObject({ do: 'fence', proof: 'lease-taken' });
  });

  test('is fenced by a lease that was taken before this server asked, but not by one of an earlier boot', () => {
    expect(on(silent({ sightings: [seen(1, { state: 'taken' })] }))).toMatchObject({ proof: 'lease-taken' });
    expect(on(silent({ sightings: [seen(1, { state: 'taken', bootId: 'boot0' })] }))).toMatchObject(waits('no-proof'));
  });

  test('needs a lease for every guest that is at stake', () => {
    const stakes = [
      { vmName: 'web1', poolIds: ['pool1'] },
      { vmName: 'db1', poolIds: ['pool1', 'pool2'] },
      { vmName: 'log1', poolIds: ['pool3'] },
    ];
    const sightings = [seen(1, { unchangedMs: ranOut }), seen(1, { unchangedMs: ranOut, poolId: 'pool3' })];
    expect(on(silent({ stakes, sightings, taken: ['pool1'] }))).toMatchObject({ do: 'take-lease', poolId: 'pool3' });
    expect(on(silent({ stakes, sightings, taken: ['pool1', 'pool3'] }))).toMatchObject({ do: 'fence' });
    const [first] = sightings;
    const one = on(silent({ stakes, sightings: first ? [first] : [], taken: ['pool1'] }));
    expect(one).toMatchObject({ ...waits('no-proof'), because: expect.stringContaining('log1'), person: true });
  });

  test('whose guard no watchdog covers waits for a person, unless guards are trusted', () => {
    const lost = silent({ sightings: [seen(1, { unchangedMs: ranOut })], watchdog: null });
    expect(on(lost)).toMatchObject({ ...waits('guard-not-trusted'), person: true });
    expect(on(lost, { trustGuard: true })).toMatchObject({ do: 'take-lease' });
  });

  test('with neither controller nor lease waits for a person', () => {
    expect(on(silent())).toMatchObject({ ...waits('no-proof'), person: true });
  });
});

describe('nothing is fenced', () => {
  const off = (n: number) => host(n, { silentMs: 5_000, power: { kind: 'off' } });
  const codes = (hosts: readonly HostKnown[]) =>
    [...verdicts(fleet(host(9), { hosts })).values()].map((verdict) =>
      verdict.do === 'wait' ? verdict.code : verdict.do,
    );

  test('while more than half are silent, or half of four or more', () => {
    expect(codes([off(1), off(2), host(3)])).toEqual(['many-silent', 'many-silent', 'nothing']);
    expect(codes([off(1), off(2), host(3), host(4)])).toEqual(['many-silent', 'many-silent', 'nothing', 'nothing']);
    expect(codes([off(1), off(2), host(3), host(4), host(5)])).toEqual([
      'fence',
      'fence',
      'nothing',
      'nothing',
      'nothing',
    ]);
    expect(codes([off(1), host(2)])).toEqual(['fence', 'nothing']);
    expect(codes([off(1)])).toEqual(['many-silent']);
  });

  test('by counting hosts that are fenced already: a second one may die after the first', () => {
    expect(codes([host(1, { silentMs: 60_000, fenced: true }), off(2), host(3)])).toEqual([
      'nothing',
      'fence',
      'nothing',
    ]);
  });

  test('by counting hosts that were taken away long ago and hold nothing', () => {
    const away = host(2, { silentMs: 3_600_000, stakes: [] });
    expect(codes([off(1), away, host(3), host(4)])).toEqual(['fence', 'nothing', 'nothing', 'nothing']);
    expect(codes([off(1), { ...away, silentMs: 9_000 }, host(3), host(4)])[0]).toBe('many-silent');
  });

  test('while the server has only just begun to look, or its records are being put right', () => {
    expect(on(off(1), { lookingForMs: 5_000 })).toMatchObject(waits('looking'));
    expect(on(off(1), { held: 'restored' })).toMatchObject(waits('held'));
  });
});

describe('whatever is known', () => {
  const pool = fc.constantFrom('pool1', 'pool2');
  const sighting = fc
    .record({
      poolId: pool,
      state: fc.constantFrom<LeaseSeen['state']>('held', 'released', 'taken', 'none'),
      unchangedMs: fc.nat(20_000),
      witness: fc.constantFrom(2, 3),
      bootId: fc.constantFrom('boot1', 'boot0'),
    })
    .map(({ witness, ...lease }) => seen(1, lease, witness));
  const power = fc.oneof(
    fc.constantFrom<PowerKnown>(
      { kind: 'none' },
      { kind: 'unasked' },
      { kind: 'asking', before: null },
      { kind: 'off' },
    ),
    fc.record({
      kind: fc.constant('not-off' as const),
      says: fc.constant('on'),
      offTries: fc.nat(3),
      agoMs: fc.nat(10_000),
    }),
  );
  const lost = fc
    .record({
      silentMs: fc.nat(60_000),
      power,
      stakes: fc.array(fc.record({ vmName: fc.constant('web1'), poolIds: fc.uniqueArray(pool) }), { maxLength: 3 }),
      sightings: fc.array(sighting, { maxLength: 4 }),
      taken: fc.uniqueArray(pool),
      watchdog: fc.constantFrom(true, false, null),
    })
    .map((changes) => host(1, changes));
  const others = fc.array(fc.boolean(), { minLength: 0, maxLength: 6 });
  const known = fc.record({ lost, others, trustGuard: fc.boolean(), lookingForMs: fc.nat(30_000) });
  const judge = ({
    lost,
    others,
    ...rest
  }: {
    lost: HostKnown;
    others: boolean[];
    trustGuard: boolean;
    lookingForMs: number;
  }) => {
    const hosts = [lost, ...others.map((up, i) => host(i + 2, { silentMs: up ? null : 9_000, stakes: [] }))];
    return { verdict: verdicts({ hosts, held: null, ...rest }).get(lost.id), hosts };
  };
  const acts = (verdict: Verdict | undefined) =>
    verdict !== undefined && verdict.do !== 'wait' && verdict.do !== 'nothing';

  test('a host whose lease is being renewed is neither fenced nor switched off', () => {
    fc.assert(
      fc.property(known, (each) => {
        const renewed = each.lost.sightings.some(
          ({ lease }) => lease.state === 'held' && lease.unchangedMs < aliveWithinMs,
        );
        if (renewed) expect(acts(judge(each).verdict)).toBe(false);
      }),
      { numRuns: 3_000 },
    );
  });

  test('no lease is taken that anybody saw renewed within its lease time', () => {
    fc.assert(
      fc.property(known, (each) => {
        const { verdict } = judge(each);
        if (verdict?.do !== 'take-lease') return;
        for (const { lease } of each.lost.sightings) {
          if (lease.state === 'held' && lease.poolId === verdict.poolId)
            expect(lease.unchangedMs).toBeGreaterThan(leaseTimeMs);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test('no host is fenced without a reading of off, or a taken lease for each guest', () => {
    fc.assert(
      fc.property(known, (each) => {
        const { verdict } = judge(each);
        if (verdict?.do !== 'fence') return;
        if (verdict.proof === 'power-off') {
          expect(each.lost.power.kind).toBe('off');
          return;
        }
        const taken = (poolId: string) =>
          each.lost.taken.includes(poolId) ||
          each.lost.sightings.some(
            ({ lease }) => lease.poolId === poolId && lease.state === 'taken' && lease.bootId === 'boot1',
          );
        for (const { poolIds } of each.lost.stakes) expect(poolIds.some(taken)).toBe(true);
      }),
      { numRuns: 3_000 },
    );
  });

  test('nothing is done while half of the hosts are silent', () => {
    fc.assert(
      fc.property(known, (each) => {
        const { verdict, hosts } = judge(each);
        const share = hosts.filter(({ silentMs }) => silentMs !== null).length / hosts.length;
        if (share > 0.5 || (share === 0.5 && hosts.length >= 4)) expect(acts(verdict)).toBe(false);
      }),
      { numRuns: 3_000 },
    );
  });
});
