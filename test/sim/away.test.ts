/** Nobody decides anything for ten minutes, longer than any lease lasts: guests run on, and what was open then ends. */
import { expect, test } from 'vitest';
import type { ControlPlane } from '../../src/control/plane.ts';
import { isEnd } from '../../src/migration/phases.ts';
import type { VmId } from '../../src/model/ids.ts';
import { techniques } from '../../src/model/migration.ts';
import { noFault } from '../../src/sim/faults.ts';
import { defaultOptions } from '../../src/sim/options.ts';
import { World } from '../../src/sim/world.ts';
import { migrateBody, newVm } from '../../src/wire/endpoints.ts';

const awayMs = 600_000;
const hosts = 5;
const vms = 20;

function planeOf(world: World) {
  const plane = world.leaders()[0]?.plane;
  if (!plane) throw new Error('nobody leads');
  return plane;
}

/** Twenty VMs that run, half of them on the move: each technique twice, all just begun. */
async function withOpenMoves(seed: number): Promise<World> {
  const world = new World({ ...defaultOptions, seed, hosts, vms }, noFault, undefined);
  world.start();
  await world.run(5_000);
  for (let n = 1; n <= vms; n++) {
    const body = newVm.parse({ name: `vm${n}`, memoryMiB: 512 + 128 * (n % 8), diskMiB: 64 });
    void planeOf(world).vms.create(body, null);
  }
  await world.run(20_000);
  for (let n = 0; n < techniques.length * 2; n++) {
    const body = migrateBody.parse({ technique: techniques[n % techniques.length] });
    void planeOf(world).reservations.startMigration(`vm${n + 1}`, body, null, 'somebody');
  }
  await world.run(20_400);
  const phases = [...planeOf(world).fleet.migrations.values()].map(({ phase }) => phase);
  expect(phases.filter((phase) => !isEnd(phase)).length).toBeGreaterThanOrEqual(techniques.length);
  return world;
}

/** Lets the time pass that nobody decides; what runs is looked at all the while. */
async function tenMinutes(world: World, { fleet }: Pick<ControlPlane, 'fleet'>): Promise<void> {
  const moving = [...fleet.migrations.values()].filter(({ phase }) => !isEnd(phase));
  // Its guest is shut down, and started by nobody but a server.
  const cold = new Set(moving.filter(({ technique }) => technique === 'cold').map(({ vm }) => vm));
  const wanted = [...fleet.vms.values()].flatMap(({ id }) => (cold.has(id) ? [] : [id]));
  expect(wanted.length).toBeGreaterThanOrEqual(vms - 2);
  const until = world.timeline.nowMs + awayMs;
  while (world.timeline.nowMs < until) {
    await world.run(Math.min(until, world.timeline.nowMs + 10_000));
    const missing = wanted.filter((vm) => !isThere(world, vm));
    expect(missing, `at ${world.timeline.nowMs} ms`).toEqual([]);
  }
}

function isThere(world: World, vm: VmId): boolean {
  return world.hosts.some(({ machine }) => machine.processes.some((process) => process.vm === vm && process.vcpusRun));
}

/** Somebody decides again. */
async function goesOn(world: World): Promise<void> {
  await world.run(world.timeline.nowMs + 120_000);
  world.checks.atRest();
  expect(world.checks.violations).toEqual([]);
  const { fleet } = planeOf(world);
  const ends = [...fleet.migrations.values()].map(({ phase }) => phase);
  expect(ends).toHaveLength(techniques.length * 2);
  expect(ends.filter((phase) => phase !== 'completed' && phase !== 'failed')).toEqual([]);
  expect([...fleet.vms.values()].map(({ state }) => state.kind)).toEqual(Array(vms).fill('running'));
  expect(fleet.recoveries.size).toBe(0);
}

test.each([1, 2])('the only server is away for ten minutes while VMs move (seed %i)', async (seed) => {
  const world = await withOpenMoves(seed);
  const before = planeOf(world);
  world.servers[0]?.kill(awayMs);
  await tenMinutes(world, before);
  await goesOn(world);
});

test.each([1, 2])('the whole control network is down for ten minutes while VMs move (seed %i)', async (seed) => {
  const world = await withOpenMoves(seed);
  const cuts = world.hosts.map(({ name }) => ({ of: name }));
  for (const cut of cuts) world.network.links.cut(cut);
  await tenMinutes(world, planeOf(world));
  for (const cut of cuts) world.network.links.mend(cut);
  await goesOn(world);
});
