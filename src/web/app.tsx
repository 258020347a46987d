/** The whole: signed in or not, and around every page the navigation and the state of the connection. */
import { useEffect, useState, useSyncExternalStore } from 'react';
import { UserError, messageOf } from '../model/failure.ts';
import { Live, setLive, useLive } from './live.ts';
import { routeOf, usePath, type Route } from './router.ts';
import { onSession, session, signOut, type SignedIn } from './session.ts';
import { Empty } from './parts/empty.tsx';
import { Link } from './parts/link.tsx';
import { Shell } from './parts/shell.tsx';
import { AuditPage } from './pages/audit.tsx';
import { DrainPage, DrainsPage } from './pages/drains.tsx';
import { EnergyPage } from './pages/energy.tsx';
import { FailurePage, FailuresPage } from './pages/failures.tsx';
import { FleetPage } from './pages/fleet.tsx';
import { HostPage } from './pages/host.tsx';
import { MigrationPage } from './pages/migration.tsx';
import { MigrationsPage } from './pages/migrations.tsx';
import { PlanPage, PlansPage } from './pages/plans.tsx';
import { SignIn } from './pages/sign-in.tsx';
import { VmPage } from './pages/vm.tsx';
import { VmsPage } from './pages/vms.tsx';

export function App() {
  const now = useSyncExternalStore(onSession, session);
  if (now.kind === 'asking') return null;
  return now.kind === 'signed-out' ? <SignIn because={now.because} /> : <Inside signedIn={now} />;
}

function Inside({ signedIn }: { signedIn: SignedIn }) {
  const [store, setStore] = useState<Live>();
  useEffect(() => {
    const over = new AbortController();
    const opened = new Live(signedIn.client);
    setLive(opened);
    setStore(opened);
    opened.run(over.signal).catch((error: unknown) => {
      if (over.signal.aborted) return;
      const refused = error instanceof UserError && error.code === 'unauthorized';
      signOut(refused ? 'The session is over. Sign in again.' : messageOf(error));
    });
    return () => over.abort();
  }, [signedIn]);
  return store === undefined ? null : (
    <Shell>
      <Loaded />
    </Shell>
  );
}

function Loaded() {
  const loaded = useLive((live) => live.loaded);
  const connection = useLive(({ connection }) => connection);
  const path = usePath();
  const route = routeOf(path);
  // The fleet can be looked at as soon as there are hosts.
  const isReady = loaded === 'all' || (loaded === 'hosts' && route.page === 'fleet');
  useEffect(() => {
    const about = 'ref' in route ? route.ref : route.page;
    document.title = `${about} · Drover`;
  });
  if (connection.kind === 'failed' && !isReady)
    return <Empty title="The fleet cannot be read" says={connection.says} />;
  if (!isReady)
    return <Empty title={connection.kind === 'reconnecting' ? 'Waiting for the server' : 'Reading the fleet'} busy />;
  return <Page route={route} />;
}

function Page({ route }: { route: Route }) {
  switch (route.page) {
    case 'fleet':
      return <FleetPage />;
    case 'host':
      return <HostPage key={route.ref} name={route.ref} />;
    case 'vms':
      return <VmsPage />;
    case 'vm':
      return <VmPage key={route.ref} name={route.ref} />;
    case 'migrations':
      return <MigrationsPage />;
    case 'migration':
      return <MigrationPage key={route.ref} id={route.ref} />;
    case 'plans':
      return <PlansPage />;
    case 'plan':
      return <PlanPage key={route.ref} id={route.ref} />;
    case 'drains':
      return <DrainsPage />;
    case 'drain':
      return <DrainPage key={route.ref} id={route.ref} />;
    case 'energy':
      return <EnergyPage />;
    case 'failures':
      return <FailuresPage />;
    case 'failure':
      return <FailurePage key={route.ref} id={route.ref} />;
    case 'audit':
      return <AuditPage />;
    case 'nowhere':
      return (
        <Empty title="There is no such page" says="The address may be of another version.">
          <Link to="/">To the fleet</Link>
        </Empty>
      );
  }
}
