/** Where a VM may be, as words of the command line: --apart, --together, --pin. */
import type { Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import type { VmView } from '../../wire/endpoints.ts';
import type { PlacingInput } from '../../wire/placing.ts';

export interface PlacingFlags {
  readonly apart?: string;
  readonly together?: string;
  readonly pin?: string;
}

export function addPlacingOptions(command: Command): Command {
  return command
    .option('--apart <groups>', "not on one host with other VMs of these groups, e.g. web; 'none' ends it")
    .option('--together <groups>', "on one host with the other VMs of these groups; 'none' ends it")
    .option('--pin <hosts>', "only on these hosts, e.g. h1,h2; 'none' ends it");
}

/** Only what was said. */
export function placingOf({ apart, together, pin }: PlacingFlags): PlacingInput {
  return {
    ...(apart === undefined ? {} : { apart: list(apart, '--apart') }),
    ...(together === undefined ? {} : { together: list(together, '--together') }),
    ...(pin === undefined ? {} : { pinnedTo: pin === 'none' ? null : list(pin, '--pin') }),
  };
}

export function placingWords({ placing }: Pick<VmView, 'placing'>): string {
  const { apart, together, pinnedTo } = placing;
  return [
    ...(apart.length === 0 ? [] : [`apart from others of ${apart.join(', ')}`]),
    ...(together.length === 0 ? [] : [`together with others of ${together.join(', ')}`]),
    ...(pinnedTo === null ? [] : [`only on ${pinnedTo.join(', ')}`]),
  ].join('; ');
}

function list(text: string, option: string): string[] {
  if (text === 'none') return [];
  const words = text.split(',').map((word) => word.trim());
  if (words.every((word) => word !== '')) return words;
  throw new UserError('invalid-input', `${option} '${text}' has an empty name.`, `Write ${option} one,two.`);
}
