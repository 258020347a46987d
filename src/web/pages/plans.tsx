/** Plans: what the distributor proposes and why, tried out dry, accepted or dropped; and how evenly the fleet is loaded. */
import { useEffect, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { BalanceView, DecisionView, PlanView } from '../../wire/balance.ts';
import { live, useLive } from '../live.ts';
import { goTo, pathTo } from '../router.ts';
import { bytes, duration, moment, percent, plural } from '../words.ts';
import { Act } from '../parts/act.tsx';
import { Badge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, Link, VmLink } from '../parts/link.tsx';
import { useDoing } from '../parts/notices.tsx';
import { Facts, Figure, PageFrame, Section } from '../parts/page.tsx';
import { Wide } from '../parts/wide.tsx';

const looks = {
  proposed: ['warn', 'wait'],
  running: ['run', 'run'],
  shadow: ['quiet', 'wait'],
  done: ['ok', 'ok'],
  stopped: ['warn', 'warn'],
  cancelled: ['quiet', 'off'],
  dismissed: ['quiet', 'off'],
  expired: ['quiet', 'wait'],
} as const satisfies Record<PlanView['state'], unknown>;

function PlanBadge({ plan }: { plan: PlanView }) {
  const [tone, icon] = looks[plan.state];
  return (
    <Badge tone={tone} icon={icon}>
      {plan.state}
    </Badge>
  );
}

export function PlansPage() {
  const plans = useLive((store) => store.plans.list());
  const [dry, setDry] = useState<PlanView>();
  const { busy, run } = useDoing();
  const make = (goal: 'balance' | 'consolidate', dryRun: boolean): void =>
    run(async () => {
      const plan = await live().client.makePlan({ body: { goal, dryRun } });
      if (dryRun) {
        setDry(plan);
        return null;
      }
      setDry(undefined);
      live().keepPlan(plan);
      if (plan.id === null || plan.moves.length === 0) return 'Nothing needs to move.';
      goTo(pathTo.plan(plan.id));
      return `${plural(plan.moves.length, 'move')} proposed.`;
    });
  return (
    <PageFrame
      title="Plans"
      actions={
        <>
          <Act does="makePlan" disabled={busy} onClick={() => make('balance', true)}>
            Try a spread (dry run)
          </Act>
          <Act does="makePlan" disabled={busy} onClick={() => make('consolidate', true)}>
            Try packing (dry run)
          </Act>
          <Act does="makePlan" className="primary" disabled={busy} onClick={() => make('balance', false)}>
            Propose a plan
          </Act>
        </>
      }
    >
      <Balance />
      {dry !== undefined && (
        <Section
          title="Dry run"
          about="nothing of this is done, and it is not kept"
          actions={
            <button type="button" onClick={() => setDry(undefined)}>
              Close
            </button>
          }
        >
          <PlanBody plan={dry} />
        </Section>
      )}
      <Section title="All plans">
        {plans.length === 0 ? (
          <Empty
            title="No plan has been made yet"
            says="Propose one: it says what would move and why, and waits for you."
          />
        ) : (
          <ul className="list">
            {plans.map((plan) => (
              <li key={plan.id}>
                <PlanBadge plan={plan} />
                <Link to={pathTo.plan(plan.id ?? '')}>
                  {plan.goal}: {plural(plan.moves.length, 'move')}
                </Link>
                <span className="muted grow">{plan.stateSays ?? plan.because}</span>
                <span className="muted">{moment(plan.createdAt)}</span>
              </li>
            ))}
          </ul>
        )}
      </Section>
      <Decisions />
    </PageFrame>
  );
}

function Balance() {
  const [balance, setBalance] = useState<BalanceView>();
  const [trouble, setTrouble] = useState<string>();
  const plans = useLive((store) => store.plans.version);
  useEffect(() => {
    live()
      .client.getBalance()
      .then(setBalance)
      .catch((error: unknown) => setTrouble(messageOf(error)));
  }, [plans]);
  if (trouble !== undefined) return <Empty title="How evenly it is loaded cannot be read" says={trouble} />;
  if (balance === undefined) return <Empty title="Reading how evenly it is loaded" busy />;
  const loads = balance.hosts.map(({ cpuCores, cpus }) => cpuCores / Math.max(1, cpus));
  const spread = loads.length === 0 ? null : Math.max(...loads) - Math.min(...loads);
  const { settings } = balance;
  return (
    <>
      <div className="figures">
        <Figure
          word="Mode"
          value={settings.mode}
          about={settings.mode === 'automatic' ? 'plans are carried out by themselves' : 'nothing moves without you'}
        />
        <Figure word="Spread of CPU load" value={percent(spread)} about="busiest less idlest host" />
        <Figure
          word="Stand out"
          value={plural(balance.standsOut.length, 'host')}
          about={`for ${duration(settings.unevenForMs)} to count`}
        />
        <Figure
          word="At once"
          value={plural(settings.movesAtOnce, 'move')}
          about={`${settings.movesPerHost} a host, ${settings.movesPerHour} an hour`}
        />
      </div>
      {(balance.cannotBegin ?? balance.loopWaits) !== null && (
        <p className="muted">{balance.cannotBegin ?? balance.loopWaits}</p>
      )}
      {balance.standsOut.length > 0 && (
        <Section title="Who stands out">
          <ul className="reasons">
            {balance.standsOut.map(({ says, forMs }) => (
              <li key={says}>
                <span>{says}</span>
                <span className="muted">for {duration(forMs)}</span>
              </li>
            ))}
          </ul>
        </Section>
      )}
    </>
  );
}

function Decisions() {
  const [decisions, setDecisions] = useState<readonly DecisionView[]>([]);
  const moves = useLive((store) => store.openMigrations().length);
  useEffect(() => {
    live()
      .client.listDecisions()
      .then(setDecisions)
      .catch(() => {}); // shown below as none; the page has said it when the server is away
  }, [moves]);
  if (decisions.length === 0) return null;
  return (
    <Section title="Did it pay?" about="moves of plans: what was expected, and what was measured afterwards">
      <Wide says="Moves of plans">
        <table>
          <thead>
            <tr>
              <th scope="col">VM</th>
              <th scope="col">From and to</th>
              <th scope="col">Why</th>
              <th scope="col" className="number">
                Downtime
              </th>
              <th scope="col">Gain</th>
            </tr>
          </thead>
          <tbody>
            {decisions.map((decision) => (
              <tr key={decision.id}>
                <td>
                  <Link to={pathTo.migration(decision.migration)}>{decision.vm}</Link>
                </td>
                <td>
                  {decision.from} → {decision.to}
                </td>
                <td>{decision.reason}</td>
                <td className="number">{duration(decision.cost?.downtimeMs)}</td>
                <td>{decision.measured?.says ?? <span className="muted">measured later</span>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </Section>
  );
}

export function PlanPage({ id }: { id: string }) {
  const plan = useLive((store) => store.plans.get(id));
  const [trouble, setTrouble] = useState<string>();
  const { busy, run } = useDoing();
  useEffect(() => {
    if (live().plans.get(id)) return;
    live()
      .client.getPlan({ params: { plan: id } })
      .then((found) => live().keepPlan(found))
      .catch((error: unknown) => setTrouble(messageOf(error)));
  }, [id]);
  if (!plan)
    return trouble === undefined ? (
      <Empty title="Reading the plan" busy />
    ) : (
      <Empty title="There is no such plan" says={trouble}>
        <Link to="/plans">All plans</Link>
      </Empty>
    );
  const params = { params: { plan: id } };
  return (
    <PageFrame
      title={`Plan to ${plan.goal}`}
      about={
        <>
          <PlanBadge plan={plan} />
          <span>{plan.stateSays ?? plan.because}</span>
          <span className="muted">
            by {plan.origin === 'loop' ? 'the distributor' : 'a person'}, {moment(plan.createdAt)}
          </span>
        </>
      }
      actions={
        plan.state === 'proposed' ? (
          <>
            <Act
              does="dismissPlan"
              disabled={busy}
              onClick={() =>
                run(async () => {
                  live().keepPlan(await live().client.dismissPlan(params));
                  return 'The plan is dropped; the same is not proposed again for a while.';
                })
              }
            >
              Drop it
            </Act>
            <Act
              does="acceptPlan"
              className="primary"
              disabled={busy || plan.moves.length === 0}
              onClick={() =>
                run(async () => {
                  live().keepPlan(await live().client.acceptPlan(params));
                  return `${plural(plan.moves.length, 'move')} begin, some at a time.`;
                })
              }
            >
              Accept
            </Act>
          </>
        ) : plan.state === 'running' ? (
          <Act
            does="cancelBalance"
            disabled={busy}
            onClick={() =>
              run(async () => {
                live().keepPlan(await live().client.cancelBalance({ body: {} }));
                return 'Nothing more of it begins; what is under way is finished.';
              })
            }
          >
            Begin nothing more
          </Act>
        ) : undefined
      }
    >
      <Section title="Moves">
        <PlanBody plan={plan} />
      </Section>
    </PageFrame>
  );
}

const moveLooks = {
  due: ['quiet', 'wait'],
  moving: ['run', 'run'],
  done: ['ok', 'ok'],
  failed: ['bad', 'bad'],
  left: ['quiet', 'off'],
} as const;

function PlanBody({ plan }: { plan: PlanView }) {
  const { moves, refused, score, emptied } = plan;
  return (
    <>
      <Facts
        rows={[
          ['Score before', score.before.total.toFixed(3)],
          ['Score after', `${score.after.total.toFixed(3)} (smaller is better)`],
          ...(emptied.length > 0 ? [['Emptied', emptied.join(', ')] as const] : []),
        ]}
      />
      {moves.length === 0 ? (
        <Empty title="Nothing needs to move" says={plan.because} />
      ) : (
        <Wide says="Moves">
          <table>
            <thead>
              <tr>
                <th scope="col" className="number">
                  Wave
                </th>
                <th scope="col">VM</th>
                <th scope="col">From and to</th>
                <th scope="col">Why</th>
                <th scope="col" className="number">
                  Gain
                </th>
                <th scope="col" className="number">
                  Downtime
                </th>
                <th scope="col" className="number">
                  Total
                </th>
                <th scope="col" className="number">
                  Sent
                </th>
                <th scope="col">State</th>
              </tr>
            </thead>
            <tbody>
              {moves
                .toSorted((a, b) => a.wave - b.wave)
                .map((move) => {
                  const [tone, icon] = moveLooks[move.state];
                  return (
                    <tr key={`${move.vm} ${move.wave}`}>
                      <td className="number">{move.wave}</td>
                      <td>
                        <VmLink name={move.vm} />
                      </td>
                      <td className="nowrap">
                        <HostLink name={move.from} /> → <HostLink name={move.to} />
                      </td>
                      <td>
                        {move.reason}
                        {move.hop && <span className="muted"> It goes on from there.</span>}
                      </td>
                      <td className="number">{move.gain.toFixed(3)}</td>
                      <td className="number">{duration(move.forecast.downtimeMs)}</td>
                      <td className="number">{duration(move.forecast.totalMs)}</td>
                      <td className="number">{bytes(move.forecast.bytes)}</td>
                      <td>
                        {move.migration === null ? (
                          <Badge tone={tone} icon={icon}>
                            {move.state}
                          </Badge>
                        ) : (
                          <Link to={pathTo.migration(move.migration)}>
                            <Badge tone={tone} icon={icon}>
                              {move.state}
                            </Badge>
                          </Link>
                        )}
                      </td>
                    </tr>
                  );
                })}
            </tbody>
          </table>
        </Wide>
      )}
      {refused.length > 0 && (
        <details>
          <summary>{plural(refused.length, 'move')} wanted and not possible</summary>
          <ul className="reasons">
            {refused.map(({ vm, wanted, says }) => (
              <li key={`${vm} ${wanted} ${says}`}>
                <span>
                  <VmLink name={vm} /> {wanted !== null && `to ${wanted}`}
                </span>
                <span className="muted">{says}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}
