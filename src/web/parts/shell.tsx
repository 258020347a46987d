/** Around every page: the navigation, whether what is shown is live, colours, and notices of what was done. */
import { useEffect, useState, type ReactNode } from 'react';
import { useLive, type Connection } from '../live.ts';
import { usePath } from '../router.ts';
import { signOut } from '../session.ts';
import { duration } from '../words.ts';
import { useMay } from './act.tsx';
import { Icon, type IconName } from './icon.tsx';
import { Link } from './link.tsx';
import { Notices } from './notices.tsx';
import { useNow } from './page.tsx';
import { PasswordDialog } from './password-dialog.tsx';

const entries = [
  ['/', 'Fleet', 'fleet'],
  ['/vms', 'VMs', 'vms'],
  ['/migrations', 'Migrations', 'migrations'],
  ['/plans', 'Plans', 'plans'],
  ['/drains', 'Drains', 'drains'],
  ['/energy', 'Energy', 'energy'],
  ['/failures', 'Failures', 'failures'],
  ['/audit', 'Audit', 'audit'],
] as const satisfies readonly (readonly [string, string, IconName])[];

export function Shell({ children }: { children: ReactNode }) {
  const path = usePath();
  const open = useLive((live) => live.openMigrations().length);
  const proposed = useLive((live) => live.plans.list().filter(({ state }) => state === 'proposed').length);
  const maySeeAudit = useMay('listAudit');
  const counts: Readonly<Record<string, number>> = { '/migrations': open, '/plans': proposed };
  return (
    <div className="shell">
      <a className="skip" href="#main">
        To the content
      </a>
      <header className="side">
        <Link to="/" className="brand">
          <img src="/icon.svg" alt="" width="24" height="24" />
          Drover
        </Link>
        <nav aria-label="Pages">
          {entries
            .filter(([to]) => to !== '/audit' || maySeeAudit)
            .map(([to, word, icon]) => (
              <NavEntry key={to} to={to} icon={icon} word={word} here={isHere(path, to)} count={counts[to] ?? 0} />
            ))}
        </nav>
        <div className="side-foot">
          <ConnectionState />
          <ThemeChoice />
          <Who />
          <button type="button" className="plain" onClick={() => signOut(null)}>
            Sign out
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Broken />
        {children}
      </main>
      <Notices />
    </div>
  );
}

function Who() {
  const me = useLive((live) => live.me);
  const [changing, setChanging] = useState(false);
  if (!me) return null;
  return (
    <>
      <p className="who" title={me.via === 'session' ? 'signed in by password' : `by the token ${me.token ?? ''}`}>
        {me.name} <span className="muted">{me.role}</span>
      </p>
      {me.via === 'session' && (
        <button type="button" className="plain" onClick={() => setChanging(true)}>
          Change password
        </button>
      )}
      {changing && <PasswordDialog name={me.name} onClose={() => setChanging(false)} />}
    </>
  );
}

function NavEntry(props: { to: string; icon: IconName; word: string; here: boolean; count: number }) {
  const { to, icon, word, here, count } = props;
  return (
    <Link to={to} className={here ? 'nav-entry here' : 'nav-entry'}>
      <Icon name={icon} />
      <span aria-current={here ? 'page' : undefined}>{word}</span>
      {count > 0 && <span className="nav-count">{count}</span>}
    </Link>
  );
}

function isHere(path: string, to: string): boolean {
  return to === '/' ? path === '/' || path.startsWith('/hosts') : path === to || path.startsWith(`${to}/`);
}

const words: Record<Connection['kind'], string> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  failed: 'Not connected',
};

function ConnectionState() {
  const { kind } = useLive(({ connection }) => connection);
  return (
    <div className={`connection ${kind}`} role="status">
      <span className="connection-dot" aria-hidden="true" />
      {words[kind]}
    </div>
  );
}

/** Said large when the server is away: what is shown is then as it was. */
function Broken() {
  const connection = useLive(({ connection }) => connection);
  const now = useNow();
  if (connection.kind !== 'reconnecting') return null;
  return (
    <p className="banner" role="alert">
      <Icon name="warn" />
      The server does not answer. What is shown is {duration(Math.max(1000, now - connection.since))} old; it goes on by
      itself when the server is back. Guests and moves are not affected.
    </p>
  );
}

const themes = ['system', 'light', 'dark'] as const;
type Theme = (typeof themes)[number];

function ThemeChoice() {
  const [theme, setTheme] = useState<Theme>(() => {
    const kept = localStorage.getItem('drover.theme');
    return themes.find((each) => each === kept) ?? 'system';
  });
  useEffect(() => {
    document.documentElement.dataset['theme'] = theme;
    localStorage.setItem('drover.theme', theme);
  }, [theme]);
  return (
    <label className="theme">
      <span>Colours</span>
      <select
        value={theme}
        onChange={(event) => setTheme(themes.find((each) => each === event.target.value) ?? 'system')}
      >
        <option value="system">Auto</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}
