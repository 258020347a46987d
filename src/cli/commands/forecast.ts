/** `drover forecast`: what a move would cost by each technique, before there is one. */
import type { Command } from 'commander';
import { formatBytes, formatMs } from '../../model/units.ts';
import type { ForecastTable } from '../../wire/forecast.ts';
import { named, type Context } from '../context.ts';
import { basisWords, notConvergingWords } from '../forecast-words.ts';
import { table } from '../table.ts';
import { addPolicyOptions, policyOf, type PolicyFlags } from './migrate.ts';

export function addForecast(program: Command, context: Context): void {
  const command = program
    .command('forecast <vm>')
    .description('what a move would cost by each technique; nothing is moved')
    .option('--to <host>', 'where to (else where it fits best)');
  addPolicyOptions(command)
    .addHelpText(
      'after',
      `
Looks at the guest's memory for a good second; \`auto\` is what would be chosen for it.

Examples:
  $ drover forecast web1
  $ drover forecast web1 --to h2 --max-bandwidth 500Mbit --max-downtime 1s`,
    )
    .action(async (vm: string, flags: PolicyFlags & { readonly to?: string }) => {
      const body = { to: flags.to ?? null, policy: policyOf(flags) };
      const answer = await named(context, { vm, host: flags.to }, () =>
        context.client().forecastVm({ params: { vm }, body }),
      );
      context.print(answer, () => forecastText(answer));
    });
}

function forecastText({ vmName, source, target, techniques }: ForecastTable): string {
  const rows = techniques.map(({ technique, refused, forecast }) => {
    if (!forecast) return [technique, '-', '-', '-', '-', '-', '-', `refused: ${refused ?? 'no forecast'}`];
    const { converges, totalMs, downtimeMs, blackoutMs, bytes, rounds, faults, because } = forecast;
    if (!converges)
      return [technique, '-', '-', '-', '-', '-', '-', `does not converge: ${notConvergingWords(forecast)}`];
    const cost = [formatMs(totalMs), formatMs(downtimeMs), formatMs(blackoutMs), formatBytes(bytes)];
    return [technique, ...cost, String(rounds), String(faults), because ?? ''];
  });
  const live = techniques.find(({ forecast }) => forecast && forecast.endsBy !== 'restart')?.forecast;
  return [
    `${vmName} from ${source} to ${target}`,
    ...(live ? [basisWords(live)] : []),
    '',
    table(['TECHNIQUE', 'TOTAL', 'DOWNTIME', 'BLACKOUT', 'SENT', 'ROUNDS', 'FAULTS', ''], rows),
  ].join('\n');
}
