/** Forecasts over the API: a dry run by each technique, so that what refuses a move refuses its forecast in the same words. */
import { UserError } from '../../model/failure.ts';
import { techniques, type Migration, type Technique } from '../../model/migration.ts';
import type { HandledOf } from '../../wire/endpoints.ts';
import type { Handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import { migrationView } from '../views.ts';

type Asked = HandledOf<'forecastVm'>;
type Tried = { readonly technique: Technique } & ({ readonly migration: Migration } | { readonly refusal: UserError });

export const forecastVm: Handler<'forecastVm'> = async ({ params, body }, { plane }) => {
  const vm = plane.fleet.findVm(params.vm);
  // What refuses every technique is said at once; and all of them are forecast for one target.
  const first = await tryAll(plane, params.vm, body);
  const possible = first.find((each) => 'migration' in each);
  if (!possible) throw refusalOf(first);
  await plane.forecasts.prepare(vm, 'question');
  const to = plane.fleet.hostName(possible.migration.target);
  const tried = await tryAll(plane, params.vm, { ...body, to });
  return {
    vm: vm.id,
    vmName: vm.name,
    source: plane.fleet.hostName(vm.host),
    target: to,
    techniques: tried.map((each) => ({
      technique: each.technique,
      refused: 'refusal' in each ? each.refusal.message : null,
      forecast: 'migration' in each ? migrationView(plane, each.migration).forecast : null,
    })),
  };
};

function tryAll(plane: ControlPlane, ref: string, { to, policy }: Asked['body']): Promise<Tried[]> {
  return Promise.all(
    techniques.map(async (technique): Promise<Tried> => {
      const body = { to, technique, policy, why: null, dryRun: true, holdMs: null };
      try {
        return { technique, migration: await plane.reservations.startMigration(ref, body, null, 'api') };
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        return { technique, refusal: error };
      }
    }),
  );
}

/** What stands in the way of a cold move stands in the way of all. */
function refusalOf(tried: readonly Tried[]): UserError {
  const last = tried.findLast((each) => 'refusal' in each);
  if (!last) throw new Error('every technique is refused, and none says why');
  return last.refusal;
}
