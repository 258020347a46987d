/** The handler of each row of the endpoint table: one is missing, and this does not compile. */
import type { EndpointName } from '../../wire/endpoints.ts';
import type { Call, Handler } from '../handler.ts';
import { cancelDrain, drainHost, getDrain, getHostDrain, listDrains, undrainHost } from './drains.ts';
import {
  getEnergy,
  getHostSleep,
  getPowerPlan,
  sendHostToSleep,
  setHostSleep,
  setHostWatts,
  wakeHost,
} from './energy.ts';
import {
  acceptPlan,
  cancelBalance,
  dismissPlan,
  getBalance,
  getPlan,
  listDecisions,
  listPlans,
  makePlan,
  setBalance,
} from './balance.ts';
import { listEvents } from './events.ts';
import { getFleetSnapshot } from './fleet.ts';
import { forecastVm } from './forecast.ts';
import { getHostPower, setHostPower, switchHostPower, unsetHostPower } from './host-power.ts';
import {
  cordonHost,
  getHost,
  listHosts,
  removeHost,
  reportFailing,
  reportWell,
  uncordonHost,
  updateHost,
} from './hosts.ts';
import { getLoads } from './loads.ts';
import { cancelMigration, getMigration, listMigrations, recordBlackout, switchMigration } from './migrations.ts';
import { backup, checkFleet, getStatus } from './status.ts';
import { fenceHost, getRecovery, listRecoveries } from './recoveries.ts';
import { cancelTask, createTasks, getTask, getTaskOutput, listTasks } from './tasks.ts';
import { consoleVm, createVm, deleteVm, getVm, listVms, migrateVm, startVm, stopVm, updateVm } from './vms.ts';
import {
  changeMyPassword,
  createToken,
  createUser,
  getMe,
  getUser,
  listAudit,
  listTokens,
  listUsers,
  login,
  logout,
  removeUser,
  revokeToken,
  updateUser,
} from './people.ts';
import { createWebhook, listDeliveries, listWebhooks, removeWebhook, testWebhook } from './webhooks.ts';

export const handlers = {
  getStatus,
  listHosts,
  getHost,
  updateHost,
  cordonHost,
  uncordonHost,
  reportFailing,
  reportWell,
  removeHost,
  forecastVm,
  getHostPower,
  setHostPower,
  unsetHostPower,
  switchHostPower,
  drainHost,
  getHostDrain,
  cancelDrain,
  undrainHost,
  listDrains,
  getDrain,
  getHostSleep,
  setHostSleep,
  sendHostToSleep,
  wakeHost,
  setHostWatts,
  getEnergy,
  getPowerPlan,
  acceptPlan,
  cancelBalance,
  dismissPlan,
  getBalance,
  getPlan,
  listDecisions,
  listPlans,
  makePlan,
  setBalance,
  fenceHost,
  listRecoveries,
  getRecovery,
  updateVm,
  listVms,
  createVm,
  getVm,
  deleteVm,
  startVm,
  stopVm,
  migrateVm,
  consoleVm,
  getLoads,
  listMigrations,
  getMigration,
  cancelMigration,
  switchMigration,
  recordBlackout,
  createTasks,
  listTasks,
  getTask,
  cancelTask,
  getTaskOutput,
  listEvents,
  getFleetSnapshot,
  backup,
  checkFleet,
  changeMyPassword,
  createToken,
  createUser,
  getMe,
  getUser,
  listAudit,
  listTokens,
  listUsers,
  login,
  logout,
  removeUser,
  revokeToken,
  updateUser,
  createWebhook,
  listDeliveries,
  listWebhooks,
  removeWebhook,
  testWebhook,
} satisfies { [N in EndpointName]: Handler<N> };

/** Each handler with the types of its own row folded away: what it gets was parsed by that row. */
export type AnyHandler = (input: unknown, call: Call, stream?: unknown) => unknown;
