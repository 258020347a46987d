/** Which VMs the fleet of `npm run dev` has: spread unevenly, so that there is something to balance. */
import type { DevFleet, GuestKind } from './fleet.ts';

const shops = ['shop', 'blog', 'mail', 'wiki', 'crm'];

/** Four or so a host, the first hosts fuller than the rest. */
export async function populate(fleet: DevFleet): Promise<void> {
  const names = fleet.hosts.map(({ name }) => name);
  const wanted: { name: string; kind: GuestKind; host: string; isApart?: boolean }[] = [];
  names.forEach((host, index) => {
    const shop = `${shops[index % shops.length]}${index < shops.length ? '' : Math.floor(index / shops.length) + 1}`;
    wanted.push({ name: `${shop}-web`, kind: 'web', host });
    wanted.push({
      name: `${shop}-db`,
      kind: 'db',
      host: names[(index + 1) % names.length] ?? host,
      isApart: index < shops.length,
    });
    if (index % 2 === 0) wanted.push({ name: `${shop}-cache`, kind: 'cache', host: names[index % 3] ?? host });
    if (index % 3 === 0) wanted.push({ name: `build${index / 3 + 1}`, kind: 'build', host: names[0] ?? host });
    if (index % 4 === 0) wanted.push({ name: `${shop}-jump`, kind: 'idle', host });
  });
  await Promise.all(
    wanted.map(({ name, kind, host, isApart }) =>
      fleet.create(name, kind, host, isApart === true ? { placing: { apart: ['databases'] } } : {}),
    ),
  );
  await fleet.vmsRun();
}
