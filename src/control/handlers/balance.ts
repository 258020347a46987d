/** The distributor over the API. */
import { UserError } from '../../model/failure.ts';
import type { BalanceSettings } from '../../model/distribution.ts';
import type { BalanceChanges } from '../../wire/balance.ts';
import { balanceView, decisionView, planView } from '../balance-views.ts';
import type { Handler } from '../handler.ts';
import { isEmpty } from '../planning.ts';
import { pageOf } from '../pages.ts';
import { expectVersion, tellVersion, versionOf } from '../versions.ts';
import { isTimeZone } from '../quiet-hours.ts';

const asked = 'asked for';

export const getBalance: Handler<'getBalance'> = (_, call) => {
  tellVersion(call, versionOf(call.plane.fleet.balance));
  return balanceView(call.plane);
};

export const setBalance: Handler<'setBalance'> = async ({ body }, call) => {
  const { plane, actor } = call;
  await plane.distributor.set(settingsOf(body), actor.name, (now) => expectVersion(call, versionOf(now)));
  tellVersion(call, versionOf(plane.fleet.balance));
  return balanceView(plane);
};

export const cancelBalance: Handler<'cancelBalance'> = async ({ body }, { plane, actor }) =>
  planView(plane.fleet, await plane.distributor.cancel(actor.name, body.moves));

export const listDecisions: Handler<'listDecisions'> = ({ query }, call) => {
  const { fleet } = call.plane;
  const decisions = [...fleet.decisions.values()].toReversed();
  return pageOf(call, decisions, query, ({ id }) => id, 'descending').map((each) => decisionView(fleet, each));
};

export const listPlans: Handler<'listPlans'> = ({ query }, call) => {
  const { fleet } = call.plane;
  const plans = [...fleet.plans.values()]
    .filter(({ state }) => query.state === undefined || state.kind === query.state)
    .toReversed();
  return pageOf(call, plans, query, ({ id }) => id, 'descending').map((plan) => planView(fleet, plan));
};

export const makePlan: Handler<'makePlan'> = async ({ body }, { plane, request }) => {
  const { dryRun, ...ask } = body;
  if (dryRun) return planView(plane.fleet, await plane.distributor.preview(ask, asked), false);
  const plan = await plane.distributor.propose(ask, asked, request);
  return planView(plane.fleet, plan, !isEmpty(plan));
};

export const getPlan: Handler<'getPlan'> = ({ params }, { plane }) =>
  planView(plane.fleet, plane.fleet.findPlan(params.plan));

export const acceptPlan: Handler<'acceptPlan'> = async ({ params }, { plane, actor }) =>
  planView(plane.fleet, await plane.distributor.accept(params.plan, actor.name));

export const dismissPlan: Handler<'dismissPlan'> = async ({ params }, { plane, actor }) =>
  planView(plane.fleet, await plane.distributor.dismiss(params.plan, actor.name));

function settingsOf(body: BalanceChanges): Partial<BalanceSettings> {
  const { timeZone } = body;
  if (timeZone !== undefined && !isTimeZone(timeZone)) {
    throw new UserError('invalid-input', `There is no time zone '${timeZone}'.`, 'Write it as Europe/Berlin or UTC.');
  }
  const given = Object.entries(body).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given);
}
