/**
 * Wake-on-LAN: a magic packet is six bytes ff and sixteen times the card's address (AMD publication 20213, "Magic Packet
 * Technology"). It has no answer: whether the machine woke is seen when it says something.
 */
import { createSocket } from 'node:dgram';
import { networkInterfaces, type NetworkInterfaceInfo } from 'node:os';

/** Discard: what listens there, if anything, throws the packet away. */
const wakePort = 9;
const copies = 16;
const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

interface WakeTarget {
  readonly address: string;
  readonly port: number;
}

/** @throws Error when it is no address of a network card */
export function magicPacket(mac: string): Buffer {
  if (!macPattern.test(mac)) throw new Error(`'${mac}' is not an address of a network card`);
  const address = Buffer.from(mac.replaceAll(':', ''), 'hex');
  return Buffer.concat([Buffer.alloc(6, 0xff), ...Array.from({ length: copies }, () => address)]);
}

/**
 * Sends one for each card to the broadcast address of every network that this machine stands in.
 * @throws Error when none could be sent at all
 */
export async function sendMagicPackets(macs: readonly string[], targets = broadcastTargets()): Promise<void> {
  const socket = createSocket('udp4');
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.bind(0, () => {
        socket.off('error', reject);
        resolve();
      });
    });
    socket.setBroadcast(true);
    const send = (packet: Buffer, { address, port }: WakeTarget) =>
      new Promise<Error | null>((resolve) => socket.send(packet, port, address, (error) => resolve(error)));
    const packets = macs.map(magicPacket);
    const errors = await Promise.all(packets.flatMap((packet) => targets.map((target) => send(packet, target))));
    const [first] = errors;
    if (first && errors.every((error) => error !== null)) throw first;
  } finally {
    socket.close();
  }
}

function broadcastTargets(): WakeTarget[] {
  const own = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  const addresses = own.flatMap((each) => (each.family === 'IPv4' && !each.internal ? [broadcastOf(each)] : []));
  return ['255.255.255.255', ...new Set(addresses)].map((address) => ({ address, port: wakePort }));
}

function broadcastOf({ address, netmask }: NetworkInterfaceInfo): string {
  const mask = netmask.split('.').map(Number);
  return address
    .split('.')
    .map((part, index) => (Number(part) | (~(mask[index] ?? 255) & 255)) & 255)
    .join('.');
}
