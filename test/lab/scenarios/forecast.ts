/** What a move is expected to cost is measured on a real guest, kept with the move and not far from what it cost. */
import assert from 'node:assert/strict';
import { MiB } from '../../../src/model/units.ts';
import type { Scenario } from '../harness.ts';

/** Others use the machine, too: the benchmark says how near forecasts come, this only that they are forecasts. */
const farthest = 4;

export const scenarios: readonly Scenario[] = [
  {
    name: 'forecast: a dry run and the table change nothing, and a move keeps a forecast that is not far off',
    async run(lab) {
      const test = await lab.guest('writer');
      const to = lab.otherThan(test.vm.host);
      const params = { vm: test.vm.id };
      const before = await lab.records();
      const table = await lab.client.forecastVm({ params, body: { to } });
      assert.deepEqual(
        table.techniques.filter(({ forecast, refused }) => !forecast || refused !== null),
        [],
        'a technique has no forecast',
      );
      const dry = await lab.client.migrateVm({ params, body: { to, technique: 'pre-copy', dryRun: true } });
      assert(dry.forecast?.converges, 'a dry run says nothing of the cost');
      assert.deepEqual(await lab.records(), before, 'asking for a forecast changed something');

      const { migration, proof } = await lab.move(test, to, 'pre-copy');
      assert(proof.ok, proof.says);
      const { forecast, measures } = migration;
      assert(forecast?.converges && forecast.endsBy === 'stop-and-copy', 'the move keeps no forecast');
      const { inUseBytes, inUseFrom, writingFrom } = forecast.basis;
      assert(inUseFrom === 'measured' || inUseFrom === 'earlier-moves', `memory in use is only ${inUseFrom}`);
      assert(writingFrom === 'measured' || writingFrom === 'earlier-moves', `writing is only ${writingFrom}`);
      assert(inUseBytes > 64 * MiB && inUseBytes <= 256 * MiB, `${inUseBytes} bytes in use`);
      for (const figure of ['totalMs', 'bytes'] as const) {
        const times = (measures[figure] ?? 0) / forecast[figure];
        assert(
          times < farthest && times > 1 / farthest,
          `${figure}: ${measures[figure]}, forecast ${forecast[figure]}`,
        );
      }
      await lab.clean();
    },
  },
];
