import { createSocket } from 'node:dgram';
import { describe, expect, it } from 'vitest';
import { magicPacket, sendMagicPackets } from './magic-packet.ts';

describe('a magic packet', () => {
  it('is six bytes ff and sixteen times the address', () => {
    const packet = magicPacket('52:54:00:Aa:bb:01');
    expect(packet.length).toBe(102);
    expect(packet.subarray(0, 6).toString('hex')).toBe('ffffffffffff');
    for (let n = 0; n < 16; n++) expect(packet.subarray(6 + n * 6, 12 + n * 6).toString('hex')).toBe('525400aabb01');
  });

  it('is refused for what is no address', () => {
    expect(() => magicPacket('52:54:00:aa:bb')).toThrow("'52:54:00:aa:bb' is not an address");
  });

  it('reaches who listens, one for each card', async () => {
    const listener = createSocket('udp4');
    await new Promise<void>((resolve) => listener.bind(0, '127.0.0.1', resolve));
    const received: string[] = [];
    const both = new Promise<void>((resolve) => {
      listener.on('message', (message) => {
        received.push(message.subarray(-6).toString('hex'));
        if (received.length === 2) resolve();
      });
    });
    const target = { address: '127.0.0.1', port: listener.address().port };
    await sendMagicPackets(['52:54:00:00:00:01', '52:54:00:00:00:02'], [target]);
    await both;
    listener.close();
    expect(received.toSorted()).toEqual(['525400000001', '525400000002']);
  });
});
