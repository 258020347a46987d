import { describe, expect, it } from 'vitest';
import { readGaneti } from './ganeti.ts';

const node = (name: string, free: number, state = 'N'): string =>
  `${name}|16384|1024|${free}|1000|1000|8|${state}|g|1||N|0|1|1`;
const instance = (name: string, on: string, tags = '', template = 'ext'): string =>
  `${name}|1024|100|1|running|Y|${on}||${template}|${tags}|1|-`;
const cluster = (nodes: string[], instances: string[]): string =>
  [['group1|g|preferred||'], nodes, instances, ['htools:iextags:aa'], ['|a|b|ext|4.0|32.0']]
    .map((lines) => lines.join('\n'))
    .join('\n\n') + '\n';
const fine = cluster(
  [node('n1', 12_288), node('n2', 15_360)],
  [1, 2, 3].map((i) => instance(`i${i}`, 'n1')),
);

describe("Ganeti's text format", () => {
  it('takes instances with a common exclusion tag apart, and leaves local disks where they are', () => {
    const text = cluster(
      [node('n1', 13_312), node('n2', 15_360)],
      [instance('i1', 'n1', 'aa:db,other'), instance('i2', 'n1', '', 'plain')],
    );
    const { snapshot } = readGaneti(text, null, 'c.data');
    expect(snapshot.vms[0]?.apart).toEqual(['aa:db']);
    expect(snapshot.vms[1]?.cannotMoveLive).toMatch(/plain/);
  });

  it('reads loads, and knows none for a VM that the file does not name', () => {
    const { snapshot } = readGaneti(fine, { text: 'i1 0.5 0 0 0\n', name: 'c.util' }, 'c.data');
    expect(snapshot.vms.map(({ load }) => load.cpuCores)).toEqual([0.5, 0, 0]);
  });

  it.each([
    ['an unknown node', fine.replace('|n1||ext', '|n9||ext'), "c.data, line 6: i1 is on 'n9', which is no node."],
    ['negative memory', fine.replace('i1|1024', 'i1|-5'), 'c.data, line 6: memory is negative: -5.'],
    ['no number', fine.replace('i1|1024', 'i1|1e300'), "c.data, line 6: '1e300' is no number for memory."],
    ['an instance twice', fine.replace('i2|', 'i1|'), 'c.data, line 7: the instance i1 was on line 6 already.'],
    [
      'DRBD',
      fine.replace('ext||1', 'drbd||1'),
      'c.data, line 6: i1 uses DRBD; only VMs on shared storage can be planned.',
    ],
    ['a line cut off', fine.slice(0, fine.indexOf('i3') + 5), "c.data, line 8: i3 is on '', which is no node."],
    ['nothing in it', '', 'c.data, line 1: there are no nodes: the second section, after an empty line, holds them.'],
  ])('with %s is refused, and the line is said', (_, text, message) => {
    expect(() => readGaneti(text, null, 'c.data')).toThrow(message);
  });

  it('refuses loads of VMs that the cluster does not have', () => {
    expect(() => readGaneti(fine, { text: 'x 1 0 0 0', name: 'c.util' }, 'c.data')).toThrow(
      "c.util, line 1: 'x' is no instance of the cluster.",
    );
  });
});
