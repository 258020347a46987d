/** A link within the dashboard. */
import type { ReactNode } from 'react';
import { followHere, pathTo } from '../router.ts';

export function Link({ to, className, children }: { to: string; className?: string; children: ReactNode }) {
  return (
    <a href={to} className={className} onClick={followHere}>
      {children}
    </a>
  );
}

export function HostLink({ name }: { name: string }) {
  return <Link to={pathTo.host(name)}>{name}</Link>;
}

export function VmLink({ name }: { name: string }) {
  return <Link to={pathTo.vm(name)}>{name}</Link>;
}
