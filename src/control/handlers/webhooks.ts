/** Webhooks over the API. */
import type { DeliveryRecord, WebhookRecord } from '../../model/webhook.ts';
import type { DeliveryView, WebhookView } from '../../wire/webhooks.ts';
import type { Call, Handler } from '../handler.ts';
import { pageOf } from '../pages.ts';

export const listWebhooks: Handler<'listWebhooks'> = (_, { plane }) =>
  [...plane.fleet.plain('webhook').values()].map((webhook) => webhookView(plane, webhook));

export const createWebhook: Handler<'createWebhook'> = async ({ body }, { plane, actor, request }) => {
  const { webhook, secret } = await plane.webhooks.add(body, actor.name, request);
  return { ...webhookView(plane, webhook), secret };
};

export const removeWebhook: Handler<'removeWebhook'> = async ({ params }, { plane }) =>
  webhookView(plane, await plane.webhooks.remove(params.webhook));

export const testWebhook: Handler<'testWebhook'> = async ({ params }, { plane }) =>
  deliveryView(await plane.webhooks.test(params.webhook));

export const listDeliveries: Handler<'listDeliveries'> = ({ params, query }, call) => {
  const { webhooks } = call.plane;
  const { id } = webhooks.find(params.webhook);
  const deliveries = webhooks
    .deliveriesOf(id)
    .filter(({ state }) => query.state === undefined || state === query.state)
    .toReversed();
  return pageOf(call, deliveries, query, (delivery) => delivery.id, 'descending').map(deliveryView);
};

function webhookView({ webhooks }: Call['plane'], { id, url, on, createdAt, createdBy }: WebhookRecord): WebhookView {
  const deliveries = webhooks.deliveriesOf(id);
  const delivered = deliveries.findLast(({ state }) => state === 'delivered');
  return {
    id,
    url,
    on: [...on],
    waiting: deliveries.filter(({ state }) => state === 'waiting').length,
    lastDeliveredAt: delivered?.nextAt ?? null,
    lastError: deliveries.findLast(({ says }) => says !== null)?.says ?? null,
    createdAt,
    createdBy,
  };
}

function deliveryView({ id, topic, at, state, attempts, nextAt, status, says }: DeliveryRecord): DeliveryView {
  return { id, topic, at, state, attempts, nextAt, status, says };
}
