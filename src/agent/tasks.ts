/**
 * Tasks in this host's guests: begun, watched and ended as the server orders, told as facts. Nothing of them is kept here: the
 * guest keeps claim, output and end, so an agent that began again, or another host's, goes on where this one was.
 *
 *   order `task` -> watched, until its guest says its end, or is not here any more; the server orders again where it runs
 *
 * Also which guests have an agent that answers (`ready`). Not here: how a guest keeps a task (hypervisor/).
 */
import type { GuestTasks, TaskSeen } from '../hypervisor/hypervisor.ts';
import { messageOf } from '../model/failure.ts';
import type { VmId } from '../model/ids.ts';
import { taskClaim, type TaskFact } from '../model/task.ts';
import type { Order, ReadyGuest, TaskJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';

type TaskOrder = Extract<Order, { kind: 'task' }>;

const firstLookMs = 100;
const longestLookMs = 1000;
/** After a guest's agent gave no answer. */
const noAnswerPauseMs = 1000;
/** What was begun or ended and does not show is asked for again after this long. */
const askAgainMs = 5000;
/** A guest that has just begun or just arrived is left alone first. */
const greetAfterMs = 1000;
const greetEveryMs = 10_000;
const longestGreetMs = 30_000;
const roundMs = 1000;

interface Watched {
  readonly job: TaskJob;
  want: TaskOrder['want'];
  saidStarted: boolean;
  /** When the guest was last asked to begin or to end it, monotonic. */
  askedAt: number;
}

interface Greeted {
  /** When it is to be asked, monotonic. */
  nextAt: number;
  pauseMs: number;
  boot: string | null;
  isAsking: boolean;
}

interface Watch {
  readonly tasks: Map<string, Watched>;
  /** Something new is there. */
  wake: () => void;
}

export class Tasks {
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #watches = new Map<VmId, Watch>();
  /** By process: the same VM at a newer generation is another guest. */
  readonly #greeted = new Map<VmId, Greeted & { readonly pid: number }>();
  readonly #over = new AbortController();

  constructor(context: AgentContext, guests: Guests) {
    this.#context = context;
    this.#guests = guests;
  }

  /** Any number of times; the newest wish counts. */
  take({ vm, task, want }: TaskOrder): void {
    if (this.#isTold(task)) return;
    const id = taskClaim(task.task, task.attempt);
    const known = this.#watches.get(vm);
    const watch = known ?? { tasks: new Map<string, Watched>(), wake: () => {} };
    const watched = watch.tasks.get(id);
    if (watched === undefined) watch.tasks.set(id, { job: task, want, saidStarted: false, askedAt: -Infinity });
    else if (watched.want !== want) Object.assign(watched, { want, askedAt: -Infinity });
    else return;
    if (known !== undefined) return watch.wake();
    this.#watches.set(vm, watch);
    void this.#watch(vm, watch).catch((error: unknown) => {
      this.#watches.delete(vm);
      this.#context.log.error({ vm, error: messageOf(error) }, 'tasks were left alone');
    });
  }

  /** Guests that can be given tasks. */
  ready(): ReadyGuest[] {
    return [...this.#greeted].flatMap(([vm, { pid, boot }]) => {
      const isStill = this.#guests.running.get(vm)?.pid === pid;
      return isStill && boot !== null ? [{ vm, boot }] : [];
    });
  }

  /** Keeps asking guests whether their agent is there, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#over.abort(signal.reason), { once: true });
    while (!signal.aborted) {
      this.#greet();
      await this.#context.clock.sleep(roundMs, signal).catch(() => {});
    }
  }

  /** An end that is told and not on record yet: the order for it was on its way. */
  #isTold({ task, attempt }: TaskJob): boolean {
    return this.#context.facts
      .unacknowledged()
      .some(({ fact: { fact } }) => fact.kind === 'task-ended' && fact.task === task && fact.attempt === attempt);
  }

  async #watch(vm: VmId, watch: Watch): Promise<void> {
    const { clock, log } = this.#context;
    const { signal } = this.#over;
    let pauseMs = firstLookMs;
    while (watch.tasks.size > 0 && !signal.aborted) {
      const guest = this.#guests.running.get(vm);
      if (guest === undefined || guest.tasks === null || !this.#mayRunHere(vm)) break;
      try {
        for (const [id, watched] of watch.tasks) {
          const news = await this.#attend(guest.tasks, id, watched);
          if (news === 'ended') watch.tasks.delete(id);
          pauseMs = news === 'nothing' ? pauseMs : firstLookMs;
        }
      } catch (error) {
        log.debug({ vm, error: messageOf(error) }, 'a guest does not answer about its tasks');
        pauseMs = noAnswerPauseMs;
      }
      const rest = new AbortController();
      watch.wake = () => {
        pauseMs = firstLookMs;
        rest.abort();
      };
      await clock.sleep(pauseMs, AbortSignal.any([rest.signal, signal])).catch(() => {});
      pauseMs = Math.min(longestLookMs, pauseMs * 1.5);
    }
    this.#watches.delete(vm); // at once: what is ordered from now on begins a watch of its own
  }

  /** One that is only arriving, or has been given away, is not to be asked: nobody, or somebody else, answers for it. */
  #mayRunHere(vm: VmId): boolean {
    const part = this.#guests.part(vm);
    return (
      part.kind === 'runs' || part.kind === 'continuing' || part.kind === 'sending' || part.kind === 'powering-off'
    );
  }

  async #attend(tasks: GuestTasks, id: string, watched: Watched): Promise<'ended' | 'asked' | 'nothing'> {
    const { clock, facts } = this.#context;
    const { signal } = this.#over;
    const { job } = watched;
    const program = { ...job, id };
    const mayAsk = clock.monotonic() - watched.askedAt >= askAgainMs;
    // To begin it is safe at any time, and what a guest has not begun needs no look.
    if (watched.want === 'run' && watched.askedAt === -Infinity) {
      watched.askedAt = clock.monotonic();
      await tasks.run(program, signal);
      return 'asked';
    }
    const seen = await tasks.look(program, signal);
    switch (seen.kind) {
      case 'ended':
      case 'gone':
      case 'refused':
        facts.task({ task: job.task, attempt: job.attempt, at: clock.now(), kind: 'task-ended', ...endOf(seen) });
        return 'ended';
      case 'unclaimed':
        if (watched.want === 'watch') {
          const end = endOf({ kind: 'gone', why: 'vanished' });
          facts.task({ task: job.task, attempt: job.attempt, at: clock.now(), kind: 'task-ended', ...end });
          return 'ended';
        }
        if (!mayAsk) return 'nothing';
        watched.askedAt = clock.monotonic();
        await (watched.want === 'cancel' ? tasks.cancel(program, signal) : tasks.run(program, signal));
        return 'asked';
      case 'running':
        if (!watched.saidStarted) {
          facts.task({ task: job.task, attempt: job.attempt, at: clock.now(), kind: 'task-started' });
          watched.saidStarted = true;
        }
        if (watched.want !== 'cancel' || !mayAsk) return 'nothing';
        watched.askedAt = clock.monotonic();
        await tasks.cancel(program, signal);
        return 'asked';
    }
  }

  #greet(): void {
    const { clock } = this.#context;
    const now = clock.monotonic();
    for (const vm of this.#greeted.keys()) if (!this.#guests.running.has(vm)) this.#greeted.delete(vm);
    for (const [vm, { pid, tasks }] of this.#guests.running) {
      if (tasks === null || this.#guests.part(vm).kind !== 'runs') continue;
      let greeted = this.#greeted.get(vm);
      if (greeted?.pid !== pid) {
        greeted = { pid, nextAt: now + greetAfterMs, pauseMs: greetAfterMs, boot: null, isAsking: false };
        this.#greeted.set(vm, greeted);
      }
      if (greeted.isAsking || now < greeted.nextAt) continue;
      void this.#ask(tasks, greeted);
    }
  }

  async #ask(tasks: GuestTasks, greeted: Greeted): Promise<void> {
    greeted.isAsking = true;
    try {
      greeted.boot = await tasks.boot(this.#over.signal);
      greeted.pauseMs = greetEveryMs;
    } catch {
      // None is there, or not yet: asked for ever less often.
      greeted.pauseMs = greeted.boot === null ? Math.min(longestGreetMs, greeted.pauseMs * 1.5) : greetAfterMs;
      greeted.boot = null;
    }
    greeted.nextAt = this.#context.clock.monotonic() + greeted.pauseMs;
    greeted.isAsking = false;
  }
}

type Told = Pick<Extract<TaskFact, { kind: 'task-ended' }>, 'how' | 'status' | 'output' | 'truncated' | 'says'>;

function endOf(seen: Extract<TaskSeen, { kind: 'ended' | 'gone' | 'refused' }>): Told {
  const nothing = { status: null, output: '', truncated: false, says: '' };
  switch (seen.kind) {
    case 'ended': {
      const { how, status, output, truncated } = seen;
      return { how, status: how === 'exited' ? status : null, output, truncated, says: '' };
    }
    case 'gone':
      return { ...nothing, how: seen.why };
    case 'refused':
      return { ...nothing, how: 'refused', says: seen.says };
  }
}
