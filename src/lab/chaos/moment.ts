/**
 * The moment a move enters a phase, as early as it can be known: from the server's event stream, and where a phase lasts
 * milliseconds from the two QEMUs themselves, over the monitor they keep for emergencies. Not here: what is done then.
 */
import { connectQmp } from '../../hypervisor/qemu/qmp.ts';
import type { QmpEvent } from '../../hypervisor/qemu/qmp-events.ts';
import type { PhaseName } from '../../model/migration.ts';
import { systemClock } from '../../runtime/clock.ts';
import type { MigrationView } from '../../wire/endpoints.ts';
import { guestProcesses } from '../guests.ts';
import { commandLine } from '../processes.ts';
import type { Lab } from '../up.ts';
import type { Cell, Seen } from './cells.ts';

/** What QEMU tells before anybody else knows it. `sent`: the source has sent all, the target has loaded it. */
export type Sign = 'paused' | 'state-sent' | 'sent' | 'ran';
type Side = 'source' | 'target';

const targetPollMs = 30;

export class Moment {
  readonly #lab: Lab;
  readonly #cell: Cell;
  readonly #ending = new AbortController();
  readonly #signs = new Map<Sign, number>();
  readonly #pids = new Map<Side, number>();
  readonly #waiting = new Set<() => void>();
  #view: MigrationView | undefined;

  constructor(lab: Lab, cell: Cell) {
    this.#lab = lab;
    this.#cell = cell;
  }

  /** Begins to look, before the move is ordered: at the QEMU that runs, and at the stream. */
  async begin(vm: string, source: string): Promise<void> {
    const [running] = (await guestProcesses(this.#lab.state, vm)).filter(({ host }) => host === source);
    if (running) await this.#listen('source', running.pid);
    const opened = Promise.withResolvers<void>();
    void this.#stream(vm, () => opened.resolve()).catch((error: unknown) => opened.reject(error));
    await opened.promise;
  }

  /** The move was ordered: its target's QEMU is looked for as it comes. */
  ordered(view: MigrationView): void {
    this.#take(view);
    void this.#findTarget(view).catch(() => {}); // without it there is still the stream
  }

  /** Resolves at once when it is so already. @returns false when the move ended, or time ran out, without it */
  async reached(phase: PhaseName, timeoutMs: number): Promise<boolean> {
    const is = () => this.#entered(phase);
    await this.until(() => is() || (this.#view?.ended ?? false), timeoutMs);
    return is();
  }

  async saw(sign: Sign, timeoutMs: number): Promise<boolean> {
    await this.until(() => this.#signs.has(sign) || (this.#view?.ended ?? false), timeoutMs);
    return this.#signs.has(sign);
  }

  hasSeen(sign: Sign): boolean {
    return this.#signs.has(sign);
  }

  /** @returns undefined when it does not appear in this time */
  async pidOf(side: Side, timeoutMs: number): Promise<number | undefined> {
    await this.until(() => this.#pids.has(side), timeoutMs);
    return this.#pids.get(side);
  }

  /** What was seen of the move, by its record in the end and by QEMU. */
  seen(record: MigrationView): Seen[] {
    const names = new Set(record.history.map(({ phase }) => phase));
    const postCopy = names.has('suspended') || (this.#cell.technique !== 'pre-copy' && !names.has('stop-and-copy'));
    const meaning: Readonly<Record<Sign, PhaseName>> = {
      paused: postCopy ? 'suspended' : 'stop-and-copy',
      'state-sent': 'state-transferred',
      sent: postCopy ? 'pre-paging' : 'stop-and-copy',
      ran: postCopy ? 'resumed-with-faults' : 'resumed',
    };
    const signs =
      this.#cell.technique === 'cold' ? [] : [...this.#signs].map(([sign, at]) => ({ phase: meaning[sign], at }));
    return [...record.history.map(({ phase, at }) => ({ phase, at })), ...signs];
  }

  end(): void {
    this.#ending.abort();
  }

  #entered(phase: PhaseName): boolean {
    if (this.#view?.history.some((entry) => entry.phase === phase)) return true;
    const sign = signOf(phase);
    return this.#cell.technique !== 'cold' && sign !== undefined && this.#signs.has(sign);
  }

  /** Resolves when `is`, looked at with every news, or when the time is over. */
  async until(is: () => boolean, timeoutMs: number): Promise<void> {
    if (is()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (is()) resolve();
    };
    const timer = setTimeout(resolve, timeoutMs);
    this.#waiting.add(look);
    await promise;
    clearTimeout(timer);
    this.#waiting.delete(look);
  }

  #news(): void {
    for (const look of this.#waiting) look();
  }

  #take(view: MigrationView): void {
    this.#view = view;
    this.#news();
  }

  async #stream(vm: string, onOpen: () => void): Promise<void> {
    const { signal } = this.#ending;
    for await (const { event } of this.#lab.client.events({ signal, samples: false, onOpen })) {
      if (event.type === 'migration' && event.migration.vm === vm) this.#take(event.migration);
    }
  }

  async #findTarget({ vm, target }: MigrationView): Promise<void> {
    while (!this.#ending.signal.aborted) {
      const found = (await guestProcesses(this.#lab.state, vm)).find(({ host }) => host === target);
      if (found) return this.#listen('target', found.pid);
      await systemClock.sleep(targetPollMs, this.#ending.signal);
    }
  }

  async #listen(side: Side, pid: number): Promise<void> {
    const { signal } = this.#ending;
    this.#pids.set(side, pid);
    this.#news();
    const path = rescueSocketOf(pid);
    if (path === undefined) return;
    const connection = await connectQmp({ path, signal }).catch(() => undefined); // it died, or somebody else looks
    if (!connection) return;
    signal.addEventListener('abort', () => connection.close(), { once: true });
    const events = connection.events({ signal });
    void (async () => {
      for await (const event of events) {
        const sign = meaningOf(side, event);
        if (!sign || this.#signs.has(sign.name)) continue;
        this.#signs.set(sign.name, sign.at);
        this.#news();
      }
    })().catch(() => {}); // the signal, or QEMU's end
  }
}

function signOf(phase: PhaseName): Sign | undefined {
  if (phase === 'stop-and-copy' || phase === 'suspended') return 'paused';
  if (phase === 'state-transferred') return 'state-sent';
  return phase === 'resumed' || phase === 'resumed-with-faults' ? 'ran' : undefined;
}

function meaningOf(side: Side, event: QmpEvent): { name: Sign; at: number } | undefined {
  if (event.name === 'lost') return undefined;
  const at = event.qemuTimeMs;
  if (side === 'target') return event.name === 'RESUME' ? { name: 'ran', at } : undefined;
  if (event.name === 'STOP') return { name: 'paused', at };
  if (event.name !== 'MIGRATION') return undefined;
  if (event.data.status === 'postcopy-active') return { name: 'state-sent', at };
  return event.data.status === 'completed' ? { name: 'sent', at } : undefined;
}

/** The second of the two monitors on its command line. */
function rescueSocketOf(pid: number): string | undefined {
  const argument = commandLine(pid).find((word) => word.startsWith('unix:') && word.includes('rescue.sock'));
  return argument?.slice('unix:'.length).split(',')[0];
}
