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
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Endpoint } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { MoveJob } from '../wire/agent.ts';

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
      readonly switched: boolean;
    }
  /** This host will never run this guest again: the target may have been told to. */
  | { readonly kind: 'handed-over'; readonly job: MoveJob; readonly targetPeer: Endpoint; readonly at: number }
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
}

export interface AgentEntry {
  readonly schema: 1;
  readonly newestTerm: number;
  readonly session: number;
  readonly nextFact: number;
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

const factsReservedAtOnce = 1000;

export function openJournal(stateDir: string): Journal {
  const vmDir = join(stateDir, 'vms');
  mkdirSync(vmDir, { recursive: true, mode: 0o700 });
  const agentPath = join(stateDir, 'agent.json');
  let agent = readJson<AgentEntry>(agentPath) ?? { schema: 1, newestTerm: 0, session: 0, nextFact: 1 };
  const vms = new Map<VmId, VmEntry>();
  for (const file of readdirSync(vmDir)) {
    if (file.endsWith('.tmp')) rmSync(join(vmDir, file));
    const entry = file.endsWith('.json') ? readJson<VmEntry>(join(vmDir, file)) : undefined;
    if (entry) vms.set(entry.vm, entry);
  }
  return {
    get agent() {
      return agent;
    },
    setAgent(change) {
      agent = { ...agent, ...change };
      writeDurably(agentPath, agent);
    },
    vm: (id) => vms.get(id),
    vms: () => [...vms.values()],
    setVm(entry) {
      writeDurably(join(vmDir, `${entry.vm}.json`), entry);
      vms.set(entry.vm, entry);
    },
    forgetVm(id) {
      rmSync(join(vmDir, `${id}.json`), { force: true });
      vms.delete(id);
    },
  };
}

/** Numbers that never come twice, also after a crash: a block of them is set aside on disk before the first is used. */
export function factNumbers(journal: Journal): () => number {
  let next = journal.agent.nextFact;
  let reserved = next;
  return () => {
    if (next >= reserved) {
      reserved = next + factsReservedAtOnce;
      journal.setAgent({ nextFact: reserved });
    }
    return next++;
  };
}

function readJson<T>(path: string): T | undefined {
  if (!existsSync(path)) return undefined;
  // Only this program writes here, whole files, renamed into place.
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

function writeDurably(path: string, value: unknown): void {
  const aside = `${path}.tmp`;
  const file = openSync(aside, 'w', 0o600);
  writeSync(file, JSON.stringify(value));
  fsyncSync(file);
  closeSync(file);
  renameSync(aside, path);
  const dir = openSync(join(path, '..'), 'r');
  fsyncSync(dir);
  closeSync(dir);
}
