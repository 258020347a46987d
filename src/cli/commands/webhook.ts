/** `drover webhook …`: addresses that are told of events. */
import type { Command } from 'commander';
import type { DeliveryView, WebhookView } from '../../wire/webhooks.ts';
import { exitCodes, type Context } from '../context.ts';
import { table } from '../table.ts';

export function addWebhook(program: Command, context: Context): void {
  const webhook = program
    .command('webhook')
    .description('addresses that are told of events')
    .addHelpText('after', '\nExample:\n  $ drover webhook add https://example.org/drover --on "migration.*,failure.*"');
  webhook
    .command('add <url>')
    .description('tell an address of events from now on; the secret of its signatures is shown once')
    .requiredOption('--on <topics>', 'which, with commas: migration.*, failure.*, drain.drained, or *')
    .option('--secret <text>', 'what deliveries are signed with (else one is made)')
    .addHelpText(
      'after',
      `
Each delivery is signed: drover-signature: t=MS,v1=HMAC-SHA256(secret, "MS." + body). It is tried again for a day until it is
answered with a status of 200 to 299; the same delivery may come twice and has the same drover-delivery.

Example:
  $ drover webhook add https://example.org/drover --on "migration.*,failure.*,drain.*"`,
    )
    .action(async (url: string, flags: { on: string; secret?: string }) => {
      const on = flags.on.split(',').map((each) => each.trim());
      const made = await context.client().createWebhook({ body: { url, on, secret: flags.secret ?? null } });
      if (!context.json)
        context.say(`${made.id} is told of ${made.on.join(', ')}; keep its secret, it is not shown again:`);
      context.print(made, () => made.secret ?? '');
    });
  webhook
    .command('list')
    .description('all webhooks, and how their deliveries stand')
    .addHelpText('after', '\nExample:\n  $ drover webhook list')
    .action(async () => {
      const webhooks = await context.client().listWebhooks();
      context.print(webhooks, () => (webhooks.length === 0 ? 'there are no webhooks' : webhookTable(webhooks)));
    });
  webhook
    .command('remove <id>')
    .description('tell it no more')
    .addHelpText('after', '\nExample:\n  $ drover webhook remove hook_06fa...')
    .action(async (id: string) => {
      const removed = await context.client().removeWebhook({ params: { webhook: id } });
      context.print(removed, () => `${removed.url} is told no more`);
    });
  webhook
    .command('test <id>')
    .description('send it a webhook.test now')
    .addHelpText(
      'after',
      '\nExit code: 0 it was taken, 1 it was not.\n\nExample:\n  $ drover webhook test hook_06fa...',
    )
    .action(async (id: string) => {
      const delivery = await context.client().testWebhook({ params: { webhook: id } });
      context.print(delivery, () => (delivery.says === null ? 'it was taken' : `it was not taken: ${delivery.says}`));
      if (delivery.says !== null) context.end(exitCodes.failed);
    });
  webhook
    .command('deliveries <id>')
    .description('what was sent or is still to be, newest first')
    .addHelpText('after', '\nExample:\n  $ drover webhook deliveries hook_06fa...')
    .action(async (id: string) => {
      const deliveries = await context.client().listDeliveries({ params: { webhook: id } });
      context.print(deliveries, () => (deliveries.length === 0 ? 'nothing was sent' : deliveryTable(deliveries)));
    });
}

function webhookTable(webhooks: readonly WebhookView[]): string {
  return table(
    ['ID', 'URL', 'ON', 'WAITING', 'LAST', 'TROUBLE'],
    webhooks.map(({ id, url, on, waiting, lastDeliveredAt, lastError }) => [
      id,
      url,
      on.join(','),
      String(waiting),
      lastDeliveredAt === null ? '-' : timeOf(lastDeliveredAt),
      lastError ?? '-',
    ]),
  );
}

function deliveryTable(deliveries: readonly DeliveryView[]): string {
  return table(
    ['ID', 'TOPIC', 'AT', 'STATE', 'ATTEMPTS', 'STATUS', 'TROUBLE'],
    deliveries.map(({ id, topic, at, state, attempts, status, says }) => [
      id,
      topic,
      timeOf(at),
      state,
      String(attempts),
      String(status ?? '-'),
      says ?? '-',
    ]),
  );
}

function timeOf(at: number): string {
  return new Date(at).toISOString().slice(0, 19).replace('T', ' ');
}
