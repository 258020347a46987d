/** Migrations over the API. */
import type { Handler } from '../handler.ts';
import { isEnd } from '../../migration/phases.ts';
import { pageOf } from '../pages.ts';
import { migrationView } from '../views.ts';

export const listMigrations: Handler<'listMigrations'> = ({ query }, call) => {
  const { plane } = call;
  const vm = query.vm === undefined ? undefined : plane.fleet.findVm(query.vm).id;
  const migrations = [...plane.fleet.migrations.values()]
    .filter((migration) => vm === undefined || migration.vm === vm)
    .filter((migration) => query.open === undefined || isEnd(migration.phase) === (query.open === 'false'))
    .toReversed();
  return pageOf(call, migrations, query, ({ id }) => id, 'descending').map((each) => migrationView(plane, each));
};

export const getMigration: Handler<'getMigration'> = ({ params }, { plane }) =>
  migrationView(plane, plane.fleet.findMigration(params.migration));

export const cancelMigration: Handler<'cancelMigration'> = async ({ params }, { plane }) =>
  migrationView(plane, await plane.migrations.cancel(params.migration));

export const switchMigration: Handler<'switchMigration'> = async ({ params }, { plane }) =>
  migrationView(plane, await plane.migrations.switchNow(params.migration));

export const recordBlackout: Handler<'recordBlackout'> = async ({ params, body }, { plane }) =>
  migrationView(plane, await plane.migrations.recordBlackout(params.migration, body.blackoutMs));
