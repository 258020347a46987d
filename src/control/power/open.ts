/** Which kind of BMC a host has, and what stands in the way of using it. */
import { isIP } from 'node:net';
import { join } from 'node:path';
import type { PowerSpec } from '../../model/host.ts';
import type { Clock } from '../../runtime/clock.ts';
import { ipmiBmc } from './ipmi.ts';
import { locateIpmi } from './locate.ts';
import { controllerOver, type OpenPower } from './power.ts';
import { redfishBmc } from './redfish.ts';

const repoRoot = join(import.meta.dirname, '..', '..', '..');

/** Controllers over the network of this machine. Programs are looked for each time: they may be installed meanwhile. */
export function powerOver(clock: Clock): OpenPower {
  return (spec) => {
    const bmc =
      spec.kind === 'ipmi' ? ipmiBmc(spec, locateIpmi('ipmitool', { env: process.env, repoRoot })) : redfishBmc(spec);
    return controllerOver(bmc, clock);
  };
}

/** Why a Redfish address cannot be used; undefined when it can. A password goes over TLS, or stays on this machine. */
export function redfishObstacle(text: string): string | undefined {
  if (!URL.canParse(text)) return `'${text}' is not a URL`;
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') return 'user and password do not belong into the URL';
  if (url.protocol === 'https:') return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const loopback = host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
  if (url.protocol === 'http:' && loopback) return undefined;
  return `${url.protocol}//${url.host} is not https`;
}

/** For people: which controller, without secrets. */
export function powerSays(spec: PowerSpec): string {
  return spec.kind === 'ipmi'
    ? `ipmi ${spec.address}:${spec.port} as ${spec.user}`
    : `redfish ${spec.url} as ${spec.user}`;
}
