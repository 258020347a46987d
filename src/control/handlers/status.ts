/** The server itself and the health of the fleet over the API. */
import { isEnd } from '../../migration/phases.ts';
import { backupOf } from '../backup.ts';
import { checkFleet as findings } from '../doctor.ts';
import type { ReplyOf } from '../../wire/endpoints.ts';
import type { Handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';

export const getStatus: Handler<'getStatus'> = (_, { plane }) => ({
  version: plane.version,
  term: plane.fleet.term,
  startedAt: plane.startedAt,
  hosts: plane.fleet.hosts.size,
  vms: plane.fleet.vms.size,
  openMigrations: plane.fleet.unsettledMigrations().filter(({ phase }) => !isEnd(phase)).length,
  held: heldView(plane),
});

function heldView({ fleet, held }: ControlPlane): ReplyOf<'getStatus'>['held'] {
  const { restored } = fleet;
  if (!held.isHeld || restored === undefined) return null;
  return { since: restored.at, because: restored.because, missing: held.missing().map(({ name }) => name) };
}

export const backup: Handler<'backup'> = (_, { plane }) => backupOf(plane.store, plane.version, plane.clock);

export const checkFleet: Handler<'checkFleet'> = async (_, { plane }) => {
  const power = await plane.powerSeen.findings([...plane.fleet.hosts.values()], plane.stopped);
  return findings(plane, power);
};
