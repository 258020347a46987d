/** The server itself and the health of the fleet over the API. */
import { isEnd } from '../../migration/phases.ts';
import { checkFleet as findings } from '../doctor.ts';
import type { Handler } from '../handler.ts';

export const getStatus: Handler<'getStatus'> = (_, { plane }) => ({
  version: plane.version,
  term: plane.fleet.term,
  startedAt: plane.startedAt,
  hosts: plane.fleet.hosts.size,
  vms: plane.fleet.vms.size,
  openMigrations: plane.fleet.unsettledMigrations().filter(({ phase }) => !isEnd(phase)).length,
});

export const checkFleet: Handler<'checkFleet'> = (_, { plane }) => findings(plane);
