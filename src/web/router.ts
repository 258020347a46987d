/** Addresses of pages: which page a path is, and going there without loading anew. */
import { useSyncExternalStore, type MouseEvent } from 'react';

export type Route =
  | { readonly page: 'fleet' | 'vms' | 'migrations' | 'plans' | 'drains' | 'energy' | 'failures' | 'audit' | 'nowhere' }
  | { readonly page: 'host' | 'vm' | 'migration' | 'plan' | 'drain' | 'failure'; readonly ref: string };

const listPages = ['vms', 'migrations', 'plans', 'drains', 'energy', 'failures', 'audit'] as const;
const onePages = {
  hosts: 'host',
  vms: 'vm',
  migrations: 'migration',
  plans: 'plan',
  drains: 'drain',
  failures: 'failure',
} as const;

export function routeOf(pathname: string): Route {
  const parts = pathname.split('/').filter((part) => part !== '');
  const [first, ref] = parts;
  if (first === undefined || (first === 'hosts' && ref === undefined)) return { page: 'fleet' };
  if (parts.length === 1) {
    const list = listPages.find((page) => page === first);
    return { page: list ?? 'nowhere' };
  }
  if (parts.length === 2 && ref !== undefined && Object.hasOwn(onePages, first)) {
    // hasOwn has just said so.
    return { page: onePages[first as keyof typeof onePages], ref: decoded(ref) };
  }
  return { page: 'nowhere' };
}

export const pathTo = {
  host: (name: string) => `/hosts/${encodeURIComponent(name)}`,
  vm: (name: string) => `/vms/${encodeURIComponent(name)}`,
  migration: (id: string) => `/migrations/${encodeURIComponent(id)}`,
  plan: (id: string) => `/plans/${encodeURIComponent(id)}`,
  drain: (id: string) => `/drains/${encodeURIComponent(id)}`,
  failure: (id: string) => `/failures/${encodeURIComponent(id)}`,
} as const;

export function goTo(path: string): void {
  history.pushState(null, '', path);
  window.dispatchEvent(new PopStateEvent('popstate'));
  window.scrollTo(0, 0);
}

/** Changes the part after the question mark, without a step in the history. */
export function setQuery(changes: Readonly<Record<string, string | null>>): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(null, '', location.pathname + (text === '' ? '' : `?${text}`));
  window.dispatchEvent(new PopStateEvent('popstate'));
}

export function usePath(): string {
  return useSyncExternalStore(onPath, () => location.pathname);
}

export function useQuery(): URLSearchParams {
  return new URLSearchParams(useSyncExternalStore(onPath, () => location.search));
}

/** For links: what the browser is asked to do itself (another tab, download) it does. */
export function followHere(event: MouseEvent<HTMLAnchorElement>): void {
  if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const { pathname, search } = new URL(event.currentTarget.href);
  goTo(pathname + search);
}

function onPath(listener: () => void): () => void {
  window.addEventListener('popstate', listener);
  return () => window.removeEventListener('popstate', listener);
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
