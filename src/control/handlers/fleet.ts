/** The fleet as a whole over the API. */
import { toFleetFile } from '../../wire/fleet.ts';
import type { Handler } from '../handler.ts';

export const getFleetSnapshot: Handler<'getFleetSnapshot'> = (_, { plane }) =>
  toFleetFile(plane.distributor.snapshot());
