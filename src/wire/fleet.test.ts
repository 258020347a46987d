import { describe, expect, it, test } from 'vitest';
import { z } from 'zod';
import { UserError } from '../model/failure.ts';
import { fleetSnapshot, readFleetFile, toFleetFile } from './fleet.ts';

const small = {
  'drover-fleet': 1,
  hosts: [
    { name: 'h1', cpus: 4, memoryMiB: 8192 },
    { name: 'h2', cpus: 4, memoryMiB: 8192 },
  ],
  vms: [{ name: 'web1', host: 'h1', memoryMiB: 1024, networks: ['front'] }],
};

function errorOf(text: string): UserError {
  try {
    readFleetFile(text, 'fleet.json');
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error('it was taken');
}

describe('the snapshot file', () => {
  it('can be short: what is left out goes without saying', () => {
    const { hosts, vms, settings } = readFleetFile(JSON.stringify(small), 'fleet.json');
    expect(hosts[1]).toMatchObject({ state: 'up', networks: ['front'], machines: ['pc-q35-7.2'] });
    expect(vms[0]).toMatchObject({ running: true, memoryInUseMiB: 1024, priority: 500 });
    expect(settings.vcpuRatio).toBe(4);
  });

  it('is read back as it was written', () => {
    const snapshot = readFleetFile(JSON.stringify(small), 'fleet.json');
    expect(readFleetFile(JSON.stringify(toFleetFile(snapshot)), 'fleet.json')).toEqual(snapshot);
  });

  const [h1, h2] = small.hosts;
  const [web1] = small.vms;
  it.each([
    [
      'an unknown host',
      { ...small, vms: [{ ...web1, host: 'h3' }] },
      "fleet.json, vms[0].host: 'h3' is no host of this fleet; 'h1' is.",
    ],
    ['negative memory', { ...small, vms: [{ ...web1, memoryMiB: -1 }] }, /^fleet\.json, vms\[0\]\.memoryMiB: .*>=0\.$/],
    [
      'a VM on two hosts',
      { ...small, vms: [web1, { ...web1, host: 'h2' }] },
      "fleet.json, vms[1]: 'web1' is vms[0] already: on h1 there, on h2 here.",
    ],
    ['the same host twice', { ...small, hosts: [h1, h2, h1] }, "fleet.json, hosts[2]: 'h1' is hosts[0] already."],
    [
      'a number beyond all measure',
      { ...small, hosts: [{ ...h1, memoryMiB: 1e300 }, h2] },
      /^fleet\.json, hosts\[0\]\.memoryMiB: .*<=1000000000\.$/,
    ],
    [
      'a field that is missing',
      { ...small, hosts: [{ name: 'h1', cpus: 4 }] },
      'fleet.json, hosts[0].memoryMiB: it is missing.',
    ],
    [
      'a field nobody knows',
      { ...small, hosts: [{ ...h1, colour: 'red' }] },
      /^fleet\.json, hosts\[0\]: .*"colour"\.$/,
    ],
    ['another version', { ...small, 'drover-fleet': 2 }, /^fleet\.json, drover-fleet: /],
    ['something else altogether', [], /^fleet\.json: expected object, received array\.$/],
  ])('with %s is refused, and the place is said', (_, value, message) => {
    const error = errorOf(JSON.stringify(value));
    expect(error.code).toBe('invalid-input');
    if (typeof message === 'string') expect(error.message).toBe(message);
    else expect(error.message).toMatch(message);
  });

  it('cut off anywhere is refused, and the line is said', () => {
    const text = JSON.stringify(small, null, 2);
    for (let length = 0; length < text.length; length += 7) {
      expect(errorOf(text.slice(0, length)).message).toMatch(
        /^fleet\.json, line \d+, column \d+: it ends too early: it was cut off\.$/,
      );
    }
  });

  it('that is no JSON at all is refused', () => {
    expect(errorOf('{"drover-fleet": 1,\n hosts: 3}').message).toBe('fleet.json, line 2, column 2: this is not JSON.');
    expect(errorOf('{"drover-fleet": 1,\n"hosts": [NaN]}').message).toBe(
      'fleet.json, line 2, column 11: this is not JSON.',
    );
    expect(errorOf('{"drover-fleet": 1,}').message).toBe('fleet.json, line 1, column 20: this is not JSON.');
    expect(errorOf('\u{FEFF}[]').message).toBe('fleet.json: expected object, received array.');
  });
});

test('the schema in the reference is the one of this file (write it anew with vitest -u)', async () => {
  const schema = z.toJSONSchema(fleetSnapshot, { io: 'input' });
  const text = `${JSON.stringify({ ...schema, title: 'Drover fleet snapshot' }, null, 2)}\n`;
  await expect(text).toMatchFileSnapshot('../../docs/reference/fleet-snapshot.schema.json');
});
