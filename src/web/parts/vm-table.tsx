/** VMs as a table: on the page of all of them and on their host's. */
import type { VmView } from '../../wire/endpoints.ts';
import { cores, mebibytes, percent } from '../words.ts';
import { VmBadge } from './badge.tsx';
import { HostLink, VmLink } from './link.tsx';
import { Rows, type Column } from './rows.tsx';

const columns: readonly Column<VmView>[] = [
  { word: 'Name', width: 'minmax(120px, 2fr)', cell: ({ name }) => <VmLink name={name} /> },
  { word: 'State', width: '124px', cell: (vm) => <VmBadge vm={vm} /> },
  { word: 'Host', width: 'minmax(60px, 1fr)', cell: ({ host }) => <HostLink name={host} /> },
  { word: 'Cores in use', width: '110px', isNumber: true, isMinor: true, cell: ({ cpuCores }) => cores(cpuCores) },
  {
    word: 'of its CPUs',
    width: '110px',
    isNumber: true,
    isMinor: true,
    cell: ({ cpuCores, cpus }) => (cpuCores === null ? '–' : percent(cpuCores / cpus)),
  },
  { word: 'Memory', width: '90px', isNumber: true, isMinor: true, cell: ({ memoryMiB }) => mebibytes(memoryMiB) },
  { word: 'Priority', width: '80px', isNumber: true, isMinor: true, cell: ({ priority }) => priority },
];

export function VmTable({ vms }: { vms: readonly VmView[] }) {
  return <Rows says="VMs" rows={vms} columns={columns} keyOf={({ id }) => id} />;
}
