/**
 * What an agent must not forget over its own restart: the newest term and session it has seen, and for each VM the
 * newest generation and the part this host plays. Written whole, synced to disk, then renamed into place.
 *
 * The journal says what was decided, never what runs: that is asked of the hypervisor.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { MoveJob, StoreMark } from '../wire/agent.ts';

/**
 *   none -> runs -> sending -> handed-over -> none            source
 *                   sending -> runs                           cancelled, failed or rolled back
 *           runs -> powering-off -> none | runs               cold
 *   none -> receiving -> continuing -> runs                   target
 *           receiving -> gone-unrun                           its copy was closed or died; it never ran
 */
export type Part =
  | { readonly kind: 'none' }
  | { readonly kind: 'runs' }
  | {
      readonly kind: 'sending';
      readonly job: MoveJob;
      readonly endpoint: Endpoint;
      readonly targetPeer: Endpoint;
      readonly otherPeers?: readonly Endpoint[];
      readonly switched: boolean;
      /** When QEMU was told to, by this host's clock. */
      readonly switchedAt?: number;
    }
  /** This host will never run this guest again: the target may have been told to. */
  | {
      readonly kind: 'handed-over';
      readonly job: MoveJob;
      readonly targetPeer: Endpoint;
      readonly otherPeers?: readonly Endpoint[];
      readonly at: number;
    }
  | { readonly kind: 'powering-off'; readonly job: MoveJob }
  /** `endpoint` is there when somebody may have been told of it. */
  | { readonly kind: 'receiving'; readonly job: MoveJob; readonly endpoint?: Endpoint }
  /** `cont` may have been sent. */
  | { readonly kind: 'continuing'; readonly job: MoveJob; readonly withFaults: boolean }
  | { readonly kind: 'gone-unrun'; readonly job: MoveJob };

export interface VmEntry {
  readonly schema: 1;
  readonly vm: VmId;
  readonly name: string;
  readonly generation: number;
  readonly part: Part;
  readonly taps: readonly string[];
  /** The newest decision by which its guest ran here and is over: no order of it starts another. Absent: none. */
  readonly over?: number;
  /** The newest move whose guest stayed here, or went on here after all: no order of it moves the guest again. Absent: none. */
  readonly stayed?: MigrationId;
  /** The move that brought the guest that runs here. Absent: it was started here, or came under an older agent. */
  readonly arrived?: MigrationId;
  /** When the VM was deleted. Kept for a while, so that an order from before it does nothing. */
  readonly removedAt?: number;
}

export interface AgentEntry {
  readonly schema: 1;
  readonly newestTerm: number;
  readonly session: number;
  readonly nextFact: number;
  /** Agents of other hosts, as the server said last: ways to it when the straight one is cut. Absent: none known. */
  readonly peers?: readonly Endpoint[];
  /** Of the last order or welcome; see StoreMark. Absent: none that said it. */
  readonly mark?: StoreMark;
}

export interface Journal {
  readonly agent: AgentEntry;
  setAgent(change: Partial<AgentEntry>): void;
  vm(id: VmId): VmEntry | undefined;
  vms(): VmEntry[];
  /** Returns when it is on disk. */
  setVm(entry: VmEntry): void;
  forgetVm(id: VmId): void;
}

/** Of both kinds of entries. */
const journalSchema = 1;
const factsReservedAtOnce = 1000;

/** Where the journal is kept. Each write is there, whole and for good, when it returns. */
export interface JournalDisk {
  agent(): AgentEntry | undefined;
  vms(): VmEntry[];
  writeAgent(entry: AgentEntry): void;
  writeVm(entry: VmEntry): void;
  removeVm(id: VmId): void;
}

export function openJournal(stateDir: string): Journal {
  return journalOn(journalFiles(stateDir));
}

export function journalOn(disk: JournalDisk): Journal {
  let agent = disk.agent() ?? { schema: 1, newestTerm: 0, session: 0, nextFact: 1 };
  const vms = new Map(disk.vms().map((entry) => [entry.vm, entry]));
  return {
    get agent() {
      return agent;
    },
    setAgent(change) {
      const next = { ...agent, ...change };
      disk.writeAgent(next);
      agent = next;
    },
    vm: (id) => vms.get(id),
    vms: () => [...vms.values()],
    setVm(entry) {
      disk.writeVm(entry);
      vms.set(entry.vm, entry);
    },
    forgetVm(id) {
      disk.removeVm(id);
      vms.delete(id);
    },
  };
}

function journalFiles(stateDir: string): JournalDisk {
  const vmDir = join(stateDir, 'vms');
  mkdirSync(vmDir, { recursive: true, mode: 0o700 });
  const agentPath = join(stateDir, 'agent.json');
  const pathOf = (vm: VmId) => join(vmDir, `${vm}.json`);
  return {
    agent: () => readJson<AgentEntry>(agentPath),
    vms() {
      const files = readdirSync(vmDir);
      const entries = files.flatMap((file) =>
        file.endsWith('.json') ? (readJson<VmEntry>(join(vmDir, file)) ?? []) : [],
      );
      for (const file of files) if (file.endsWith('.tmp')) rmSync(join(vmDir, file));
      return entries;
    },
    writeAgent: (entry) => writeDurably(agentPath, entry),
    writeVm: (entry) => writeDurably(pathOf(entry.vm), entry),
    removeVm: (id) => rmSync(pathOf(id), { force: true }),
  };
}

/** Numbers that never come twice, also after a crash: a block of them is set aside on disk before the first is used. */
export function factNumbers(journal: Journal): () => number {
  let next = journal.agent.nextFact;
  let reserved = next;
  return () => {
    if (next >= reserved) {
      journal.setAgent({ nextFact: next + factsReservedAtOnce });
      reserved = next + factsReservedAtOnce;
    }
    return next++;
  };
}

/** @throws UserError incompatible when a newer Drover wrote it: then nothing of the journal is changed */
function readJson<T extends { readonly schema: 1 }>(path: string): T | undefined {
  if (!existsSync(path)) return undefined;
  // Only this program writes here, whole files, renamed into place.
  const entry = JSON.parse(readFileSync(path, 'utf8')) as T;
  refuseNewer(path, entry.schema, journalSchema);
  return entry;
}

/** What an older agent wrote is read; what a newer one wrote would be read wrongly. @throws UserError incompatible */
export function refuseNewer(path: string, schema: number, known: number): void {
  if (schema <= known) return;
  throw new UserError(
    'incompatible',
    `${path} was written by a newer Drover: it has schema ${schema}, this one knows up to ${known}.`,
    'Run that version of the agent again. It was not changed, and the guests of this host run on meanwhile.',
  );
}

function writeDurably(path: string, value: unknown): void {
  const aside = `${path}.tmp`;
  withFile(aside, 'w', (file) => {
    // Not writeSync: on a disk that is nearly full the kernel takes a part and calls that a success.
    writeFileSync(file, JSON.stringify(value));
    fsyncSync(file);
  });
  renameSync(aside, path);
  withFile(join(path, '..'), 'r', fsyncSync);
}

function withFile(path: string, flags: string, use: (file: number) => void): void {
  const file = openSync(path, flags, 0o600);
  try {
    use(file);
  } finally {
    closeSync(file);
  }
}
