/** Clusters in Ganeti's text format, made from a seed: what is compared with hbal, and what hbal makes of them. */
import { chanceFrom, type Chance } from '../../src/planner/chance.ts';

export const patterns = ['skew', 'hot', 'newhosts', 'drain', 'tight'] as const;
export type Pattern = (typeof patterns)[number];

const memoryOf = (chance: Chance): number => [1024, 2048, 2048, 4096, 4096, 8192, 16_384][chance.below(7)]!;

/**
 * @param hosts nodes of one kind
 * @returns cluster file and the file of loads for `hbal -U`
 */
export function ganetiCluster(
  hosts: number,
  pattern: Pattern,
  seed: number,
  vmsPerHost = pattern === 'tight' ? 24 : 15,
): { data: string; util: string } {
  const chance = chanceFrom(1000 * seed + hosts + 17 * patterns.indexOf(pattern));
  const nodeName = (i: number): string => `node${String(i + 1).padStart(5, '0')}`;
  const [memory, own, cores] = [pattern === 'tight' ? 98_304 : 196_608, 2048, 32];
  const count = hosts * vmsPerHost;
  const used = new Float64Array(hosts);
  const vcpus = new Float64Array(hosts).fill(1);
  const tags = Array.from({ length: hosts }, () => new Set<string>());
  const instances: string[] = [];
  const loads: string[] = [];
  const pick = placing(pattern, hosts, chance);
  for (let i = 0; i < count; i++) {
    const name = `inst${String(i + 1).padStart(6, '0')}`;
    const size = Math.min(memoryOf(chance), pattern === 'tight' ? 4096 : Infinity);
    const cpus = [1, 1, 2, 2, 4, 8][chance.below(pattern === 'tight' ? 4 : 6)]!;
    const tag = chance.next() < 0.2 ? `aa:${chance.below(Math.ceil(count / 20))}` : '';
    const fits = (node: number): boolean =>
      used[node]! + size < memory - own - 1024 &&
      (vcpus[node]! + cpus) / cores <= 4 &&
      (tag === '' || !tags[node]!.has(tag));
    let node = pick(fits);
    if (node === undefined) node = Array.from({ length: hosts }, (_, h) => h).find(fits);
    if (node === undefined) continue;
    used[node]! += size;
    vcpus[node]! += cpus;
    if (tag !== '') tags[node]!.add(tag);
    instances.push(`${name}|${size}|10240|${cpus}|running|Y|${nodeName(node)}||ext|${tag}|1|-`);
    const hot = pattern === 'hot' && chance.next() < 0.15 ? 5 : 1;
    loads.push(`${name} ${(cpus * (0.01 + 0.05 * chance.next()) * hot).toFixed(4)} 0 0 0`);
  }
  const nodes = Array.from({ length: hosts }, (_, h) => {
    const offline = pattern === 'drain' && h < Math.max(1, Math.round(hosts / 10));
    const free = memory - own - used[h]!;
    return `${nodeName(h)}|${memory}|${own}|${free}|1048576|1048576|${cores}|${offline ? 'Y' : 'N'}|uuid-group-1|1||N|0|1|1`;
  });
  const policy = (owner: string): string =>
    `${owner}|1024,1,1024,1,1,1|128,1,1024,1,1,1;262144,64,1048576,16,8,12|ext,drbd,plain|4.0|32.0`;
  const data = [
    ['group1|uuid-group-1|preferred||'],
    nodes,
    instances,
    ['htools:iextags:aa'],
    [policy(''), policy('group1')],
  ];
  return { data: `${data.map((lines) => lines.join('\n')).join('\n\n')}\n`, util: `${loads.join('\n')}\n` };
}

/** Where VMs begin, by pattern. */
function placing(
  pattern: Pattern,
  hosts: number,
  chance: Chance,
): (fits: (node: number) => boolean) => number | undefined {
  const draw = (): number => {
    switch (pattern) {
      case 'skew':
        return Math.min(chance.below(hosts), chance.below(hosts));
      case 'newhosts':
        return chance.below(Math.max(1, Math.round(hosts * 0.8)));
      case 'tight':
        return Math.floor(hosts * chance.next() ** 1.6);
      case 'hot':
        return chance.next() < 0.35 ? chance.below(Math.max(1, Math.round(hosts / 5))) : chance.below(hosts);
      case 'drain':
        return chance.below(hosts);
    }
  };
  return (fits) => {
    for (let tries = 0; tries < 40; tries++) {
      const node = draw();
      if (fits(node)) return node;
    }
    return undefined;
  };
}
