/** One pair of bars a round: what was sent, and what the guest had written again by its end. */
import type { MigrationView } from '../../wire/endpoints.ts';
import { bytes, duration, rate } from '../words.ts';
import { Wide } from '../parts/wide.tsx';

const pageBytes = 4096;

export function Rounds({ migration }: { migration: MigrationView }) {
  const { rounds } = migration;
  const most = Math.max(1, ...rounds.map((round) => Math.max(round.bytes, round.dirtyPages * pageBytes)));
  return (
    <Wide says="Rounds">
      <table className="rounds">
        <thead>
          <tr>
            <th scope="col" className="number">
              Round
            </th>
            <th scope="col">
              <span className="key sent" /> sent <span className="key dirty" /> written again
            </th>
            <th scope="col" className="number">
              Sent
            </th>
            <th scope="col" className="number">
              Written again
            </th>
            <th scope="col" className="number">
              Lasted
            </th>
            <th scope="col" className="number">
              Rate
            </th>
          </tr>
        </thead>
        <tbody>
          {rounds.map((round) => (
            <tr key={round.round}>
              <td className="number">{round.round}</td>
              <td className="round-bars" aria-hidden="true">
                <span className="bar sent" style={barOf(round.bytes / most)} />
                <span className="bar dirty" style={barOf((round.dirtyPages * pageBytes) / most)} />
              </td>
              <td className="number">{bytes(round.bytes)}</td>
              <td className="number">{bytes(round.dirtyPages * pageBytes)}</td>
              <td className="number">{duration(round.durationMs)}</td>
              <td className="number">{rate(round.bandwidthBytesPerSecond)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}

/** What is next to nothing is seen all the same, and nothing is not. */
function barOf(share: number): { width: string; minWidth: number } {
  return { width: `${share * 100}%`, minWidth: share > 0 ? 2 : 0 };
}
