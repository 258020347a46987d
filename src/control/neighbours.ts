/**
 * Whom a host is told of: other ways to the server, and the hosts whose leases it watches. Each host is watched by the three
 * before it in a ring by name, so that one that dies with its neighbour still has a witness. Pure.
 */
import type { Endpoint, HostRecord } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';

/** A host that cannot reach the server asks some of these; more would help nobody. */
const peersAtMost = 16;
const watchedByEach = 3;

export interface Neighbours {
  readonly peers: Endpoint[];
  readonly watchLeasesOf: string[];
}

export function neighboursOf(hosts: Iterable<HostRecord>, of: HostId): Neighbours {
  const ring = [...hosts].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const at = ring.findIndex(({ id }) => id === of);
  const others = [...ring.slice(at + 1), ...ring.slice(0, Math.max(0, at))];
  return {
    peers: others.slice(0, peersAtMost).map(({ inventory }) => inventory.peer),
    watchLeasesOf: others.slice(0, watchedByEach).map(({ name }) => name),
  };
}
