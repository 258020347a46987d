/** All VMs, to be searched. */
import { useMemo } from 'react';
import { useLive } from '../live.ts';
import { setQuery, useQuery } from '../router.ts';
import { plural } from '../words.ts';
import { Empty } from '../parts/empty.tsx';
import { PageFrame } from '../parts/page.tsx';
import { VmTable } from '../parts/vm-table.tsx';

const shows = ['all', 'moving', 'not running'] as const;

export function VmsPage() {
  const vms = useLive((live) => live.vms.list());
  const query = useQuery();
  const text = (query.get('q') ?? '').toLowerCase();
  const show = shows.find((each) => each === query.get('show')) ?? 'all';
  const found = useMemo(
    () =>
      vms.filter((vm) => {
        if (show === 'moving' && vm.migration === null) return false;
        if (show === 'not running' && vm.state === 'running') return false;
        return text === '' || vm.name.includes(text) || vm.host.includes(text) || labelled(vm.labels, text);
      }),
    [vms, text, show],
  );
  return (
    <PageFrame title="VMs" about={<span className="muted">{plural(found.length, 'VM')}</span>}>
      <div className="toolbar">
        <input
          type="search"
          aria-label="Find a VM by name, host or label"
          placeholder="Name, host or label"
          value={query.get('q') ?? ''}
          onChange={(event) => setQuery({ q: event.target.value })}
        />
        <label>
          Show
          <select value={show} onChange={(event) => setQuery({ show: event.target.value })}>
            {shows.map((each) => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
        </label>
      </div>
      {found.length === 0 ? (
        <Empty
          title={vms.length === 0 ? 'There are no VMs yet' : 'No VM is like that'}
          says={vms.length === 0 ? 'Create one: drover vm create NAME --image FILE' : undefined}
        />
      ) : (
        <div className="card">
          <VmTable vms={found} />
        </div>
      )}
    </PageFrame>
  );
}

function labelled(labels: Readonly<Record<string, string>>, text: string): boolean {
  return Object.entries(labels).some(([key, value]) => `${key}=${value}`.includes(text));
}
