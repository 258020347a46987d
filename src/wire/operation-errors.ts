/** Which codes an operation can be refused with, beside those that any can. For the document; a test holds it against what really comes. */
import type { UserErrorCode } from '../model/failure.ts';
import type { Endpoint, EndpointName } from './endpoints.ts';

const placement = ['no-room', 'cordoned', 'unreachable', 'incompatible', 'against-rules'] as const;
const moving = [
  ...placement,
  'busy',
  'wrong-state',
  'same-host',
  'post-copy-unavailable',
  'policy-conflict',
  'live-unsafe',
] as const;

const own: Partial<Record<EndpointName, readonly UserErrorCode[]>> = {
  login: ['login-failed', 'too-many-requests'],
  changeMyPassword: ['login-failed', 'too-many-requests'],
  createUser: ['already-exists', 'wrong-state', 'too-many-requests'],
  updateUser: ['too-many-requests'],
  createToken: ['already-exists', 'wrong-state'],
  createWebhook: ['wrong-state'],
  fenceHost: ['wrong-state'],
  removeHost: ['busy', 'wrong-state'],
  getHostPower: ['wrong-state'],
  switchHostPower: ['wrong-state', 'busy'],
  setHostSleep: ['wrong-state'],
  sendHostToSleep: ['wrong-state', 'busy', 'no-room', 'policy-conflict', 'unreachable'],
  wakeHost: ['wrong-state'],
  createVm: ['already-exists', ...placement],
  startVm: ['busy', 'wrong-state', ...placement],
  stopVm: ['busy', 'wrong-state'],
  deleteVm: ['busy', 'wrong-state'],
  updateVm: ['wrong-state'],
  migrateVm: moving,
  forecastVm: moving,
  consoleVm: ['wrong-state', 'unreachable'],
  cancelMigration: ['not-cancellable', 'wrong-state'],
  switchMigration: ['wrong-state', 'policy-conflict', 'post-copy-unavailable'],
  recordBlackout: ['wrong-state'],
  createTasks: ['wrong-state', 'no-room'],
  cancelTask: ['wrong-state', 'not-cancellable'],
  getTaskOutput: ['wrong-state'],
  drainHost: ['wrong-state', 'unreachable', 'busy'],
  undrainHost: ['wrong-state', 'unreachable', 'busy', 'cordoned'],
  cancelDrain: ['wrong-state'],
  makePlan: ['policy-conflict', 'wrong-state'],
  acceptPlan: ['wrong-state', 'busy', 'policy-conflict'],
  dismissPlan: ['wrong-state'],
  cancelBalance: ['wrong-state'],
};

/** What any operation of its kind can be refused with, and what only this one can. */
export function errorsOf(name: EndpointName, endpoint: Endpoint): readonly UserErrorCode[] {
  const { method, role, idempotent, versioned, body } = endpoint;
  const codes: UserErrorCode[] = ['invalid-input', 'unknown-field', 'internal', 'unavailable', 'timed-out'];
  if (role !== 'none') codes.push('unauthorized');
  if (role !== 'none' || method !== 'GET') codes.push('forbidden');
  if (endpoint.params !== undefined || body !== undefined || endpoint.query !== undefined) codes.push('not-found');
  if (method !== 'GET') codes.push('too-large', 'unsupported-media-type');
  if (idempotent === true) codes.push('key-reused');
  if (versioned === true && method !== 'GET') codes.push('version-mismatch');
  return [...new Set([...codes, ...(own[name] ?? [])])];
}
