/**
 * Orders from the server: admitted if they are not older than what this host has seen and not late, then carried out,
 * each VM's one after another, any of them any number of times.
 */
import { messageOf, type Failure } from '../model/failure.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import { KeyedQueue } from '../runtime/queue.ts';
import { cameTooLate, type Order } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import { failureOf, pressPowerButton, type Guests } from './guests.ts';
import type { GoReceiver, GoResult, Peers, RejoinReply } from './handover.ts';
import { Incoming, type MayClose } from './incoming.ts';
import { insist } from './insist.ts';
import type { AgentEntry, Part, VmEntry } from './journal.ts';
import { Outgoing } from './outgoing.ts';
import { rollBack } from './roll-back.ts';
import type { Tasks } from './tasks.ts';

const ordersPerVm = 100;
/** From the handover until the source's copy is ended. */
const settleMs = 300;
const rememberedAtMost = 1000;

/** Orders that bring something to the host. */
const begins: ReadonlySet<Order['kind']> = new Set(['provision', 'start', 'receive', 'power-on']);

/** May this order be carried out? Pure. @returns why not, or null */
export function refuses(order: Order, agent: AgentEntry, entry: VmEntry | undefined, now: number): string | null {
  if (order.term < agent.newestTerm) return `term ${order.term} is over: ${agent.newestTerm} was seen`;
  if (order.session < agent.session) return `session ${order.session} is over: this is ${agent.session}`;
  if (now > order.expiresAt) return cameTooLate;
  // These name a migration: what is left of that one may go, whatever was decided since.
  if (order.kind === 'close' || order.kind === 'release' || order.kind === 'cancel') return null;
  if (entry && order.generation < entry.generation)
    return `generation ${order.generation} is over: ${entry.generation} was seen`;
  return null;
}

export class Orders implements GoReceiver {
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #bar: () => string | null;
  readonly #tasks: Tasks;
  readonly #queue = new KeyedQueue({ limit: ordersPerVm });
  readonly #incoming = new Map<MigrationId, Incoming>();
  readonly #outgoing = new Map<MigrationId, Outgoing>();
  /** Closed, perhaps before they began: a `receive` that comes late does nothing. */
  readonly #closed = new Set<MigrationId>();
  /** Those whose guest runs here now. */
  readonly #arrived = new Set<MigrationId>();
  /** Those whose copy is gone and may have run. */
  readonly #lost = new Set<MigrationId>();

  /** @param bar why nothing may be begun here now; null: it may */
  constructor(context: AgentContext, guests: Guests, tasks: Tasks, bar: () => string | null = () => null) {
    this.#context = context;
    this.#guests = guests;
    this.#tasks = tasks;
    this.#bar = bar;
  }

  /** After adoption: takes up what was going on, guests that are paused first. One that fails does not stop the others. */
  resume(): void {
    const entries = this.#context.journal.vms().toSorted((a, b) => urgency(a) - urgency(b));
    for (const entry of entries) {
      void this.#queue
        .run(entry.vm, () => this.#resumeOne(entry))
        .catch((error: unknown) => this.#bug(error, `resume ${entry.part.kind}`));
    }
  }

  async #resumeOne({ vm, part }: VmEntry): Promise<void> {
    const { facts, clock, hostName } = this.#context;
    if (!('job' in part)) return;
    const { job } = part;
    const base = { migration: job.migration, at: clock.now() };
    const guest = this.#guests.running.get(vm);
    switch (part.kind) {
      case 'gone-unrun':
        return;
      case 'powering-off':
        this.#inBackground(`${vm}/power-off`, 'power-off', () => this.#powerOff(vm, job));
        return;
      case 'receiving':
      case 'continuing': {
        if (guest) return this.#keepIncoming(Incoming.resume(this.#context, this.#guests, guest, job));
        const ran = part.kind === 'continuing';
        const failure = goneFailure(job.vmName, hostName, 'target-died');
        return this.#guests.leave(vm, ran ? { kind: 'none' } : { kind: 'gone-unrun', job }, () =>
          facts.migration({ ...base, kind: ran ? 'target-lost' : 'target-failed', failure }),
        );
      }
      case 'sending':
      case 'handed-over': {
        if (guest) {
          const endpoint = part.kind === 'sending' ? part.endpoint : { address: '', port: 0 };
          this.#keepOutgoing(Outgoing.resume(this.#context, this.#guests, guest, job, endpoint, peersOf(part)));
          return;
        }
        const failure = goneFailure(job.vmName, hostName, 'source-died');
        return this.#guests.leave(vm, { kind: 'none' }, () => {
          // The target has it all: whoever knows that must say so, or nobody lets the guest run.
          if (part.kind === 'handed-over') facts.migration({ ...base, at: part.at, kind: 'handed-over' });
          facts.migration({ ...base, kind: 'source-lost', failure });
        });
      }
    }
  }

  /** Admits an order and begins it. @returns why it was refused, or null */
  admit(order: Order): string | null {
    const { journal, clock, log } = this.#context;
    const refusal =
      refuses(order, journal.agent, journal.vm(order.vm), clock.now()) ?? (begins.has(order.kind) ? this.#bar() : null);
    if (refusal !== null) {
      log.warn({ order: order.kind, vm: order.vm, refusal }, 'order refused');
      return refusal;
    }
    this.#note(order);
    this.#inBackground(queueOf(order), order.kind, async () => {
      // It had to wait for others: what was seen meanwhile counts.
      const late = refuses(order, journal.agent, journal.vm(order.vm), clock.now());
      if (late === null) return this.#carryOut(order);
      log.warn({ order: order.kind, vm: order.vm, refusal: late }, 'order outdated while it waited');
    });
    return null;
  }

  /** Puts on disk what the order says of its server. */
  #note({ term, revision = 0, kind }: Order): void {
    const { journal } = this.#context;
    const { newestTerm, mark = { term: 0, revision: 0 } } = journal.agent;
    const newer = term > mark.term || (term === mark.term && revision > mark.revision);
    // `go` ends a pause: it waits for no disk but the one that makes it safe.
    if (newer && kind !== 'go')
      journal.setAgent({
        newestTerm: Math.max(term, newestTerm),
        mark: { ...(term === mark.term ? mark : {}), term, revision },
      });
    else if (term > newestTerm) journal.setAgent({ newestTerm: term });
  }

  #inBackground(queue: string, what: string, run: () => Promise<void>): void {
    void this.#queue.run(queue, run).catch((error: unknown) => this.#bug(error, what));
  }

  async go(migration: MigrationId): Promise<GoResult> {
    const incoming = this.#incoming.get(migration);
    if (incoming) return incoming.go();
    if (this.#arrived.has(migration)) return 'continued';
    const entry = this.#context.journal.vms().find(({ part }) => 'job' in part && part.job.migration === migration);
    switch (entry?.part.kind) {
      case 'gone-unrun':
        return 'gone-unrun';
      case 'receiving':
      case 'continuing':
        return 'not-ready'; // this agent has only just begun, and has not taken it up yet
      default:
        return 'unknown';
    }
  }

  async rejoin(migration: MigrationId, vm: VmId, listen: boolean): Promise<RejoinReply> {
    const incoming = this.#incoming.get(migration);
    if (incoming) return incoming.rejoin(listen);
    // An agent that began again does not know by which move the guest came, but such a guest lacks nothing.
    const hasArrived = this.#guests.part(vm).kind === 'runs' && this.#guests.running.has(vm);
    if (hasArrived) return { result: 'complete', endpoint: null, says: 'every page is here' };
    if (this.#lost.has(migration)) return { result: 'incomplete', endpoint: null, says: 'the copy ran, and is gone' };
    const entry = this.#context.journal.vms().find(({ part }) => 'job' in part && part.job.migration === migration);
    const says = `${this.#context.hostName} has only just begun`;
    switch (entry?.part.kind) {
      case 'gone-unrun':
        return { result: 'gone', endpoint: null, says: 'the copy is gone and never ran' };
      case 'receiving':
        return { result: 'not-switched', endpoint: null, says };
      case 'continuing':
        return { result: 'incomplete', endpoint: null, says };
      default:
        return { result: 'unknown', endpoint: null, says: `${this.#context.hostName} knows nothing of this move` };
    }
  }

  async #carryOut(order: Order): Promise<void> {
    const { facts, clock } = this.#context;
    const { vm, generation } = order;
    switch (order.kind) {
      case 'provision': {
        const failure = await this.#guests.provision(vm, order.provision);
        const base = { vm, generation, at: clock.now() };
        facts.guest(failure ? { ...base, kind: 'provision-failed', failure } : { ...base, kind: 'provisioned' });
        return;
      }
      case 'start':
        return this.#start(order);
      case 'stop':
        // It may have overtaken a start that is still under way.
        if (!this.#guests.running.has(vm)) await this.#queue.run(vm, async () => {});
        this.#guests.setPart(vm, this.#guests.part(vm), { generation });
        return this.#guests.stop(vm, order.force, order.timeoutMs);
      case 'keep':
        this.#guests.setPart(vm, this.#guests.part(vm), { generation });
        return;
      case 'discard':
        await this.#guests.destroy(vm);
        if (this.#guests.part(vm).kind === 'handed-over') await this.#guests.leave(vm);
        return;
      case 'remove':
        await this.#guests.destroy(vm);
        if (order.disks === 'delete') await this.#context.disks.remove(order.provision);
        this.#guests.forget(vm, generation);
        facts.guest({ vm, generation, at: clock.now(), kind: 'removed' });
        return;
      case 'receive':
        return this.#receive(order);
      case 'send':
        return this.#send(order);
      case 'cancel':
        return this.#cancel(vm, order.migration);
      case 'switch':
        return this.#outgoing.get(order.migration)?.switchNow();
      case 'go':
        await this.go(order.migration);
        return;
      case 'roll-back':
        return this.#rollBack(vm, order.migration);
      case 'release':
        return this.#release(order);
      case 'close':
        return this.#close(vm, order.migration, order);
      case 'task':
        return this.#tasks.take(order);
      case 'power-off':
        return this.#powerOff(vm, order.job);
      case 'power-on':
        return this.#powerOn(order);
    }
  }

  async #start(order: Extract<Order, { kind: 'start' }>): Promise<void> {
    const { facts, clock } = this.#context;
    const { vm, generation } = order;
    // Started before, and over already, though the server does not know it yet: it would take the second for gone, too.
    if (this.#guests.isOver(vm, generation)) return;
    await this.#clearOlder(vm, generation);
    const already = this.#guests.running.get(vm);
    let running = already?.running;
    try {
      running ??= await this.#guests.start(vm, generation, order.name, order.spec, order.running);
    } catch (error) {
      const failure = failureOf(error, `${order.name} could not be started.`);
      facts.guest({ vm, generation, at: clock.now(), kind: 'start-failed', failure });
      return this.#isOver(vm, generation, order.name);
    }
    // From here on it runs, whatever becomes of this order: one that is not answered comes again.
    if (already) this.#guests.setPart(vm, this.#guests.part(vm), { generation });
    facts.guest({ vm, generation, at: clock.now(), kind: 'started', running });
  }

  async #receive(order: Extract<Order, { kind: 'receive' }>): Promise<void> {
    const { vm, generation, job } = order;
    const { facts, clock, hostName } = this.#context;
    const known = this.#incoming.get(job.migration);
    if (known) return known.sayListening();
    if (this.#arrived.has(job.migration) || this.#guests.hasArrived(vm, job.migration)) return; // whatever became of it since
    const part = this.#guests.part(vm);
    const ours = 'job' in part && part.job.migration === job.migration;
    if (ours && part.kind !== 'gone-unrun') return; // it is here, and may run
    const guest = this.#guests.running.get(vm);
    if (ours || this.#closed.has(job.migration) || (guest && mayRun(part))) {
      const failure: Failure = {
        code: 'target-did-not-start',
        message: guest
          ? `${job.vmName} runs on ${hostName} already; nothing was received.`
          : `The copy of ${job.vmName} on ${hostName} was closed before.`,
        hint: 'See where the VM runs (drover vm show), then try again.',
      };
      return facts.migration({ migration: job.migration, at: clock.now(), kind: 'target-failed', failure });
    }
    await this.#clearLeftover(vm);
    const incoming = await Incoming.begin(this.#context, this.#guests, vm, generation, job);
    if (incoming) this.#keepIncoming(incoming);
  }

  /** What an earlier move left here never ran, or never will again: whoever orders something new of this VM knows better. */
  async #clearLeftover(vm: VmId): Promise<void> {
    await this.#guests.left(vm);
    if (!this.#guests.running.has(vm) || mayRun(this.#guests.part(vm))) return;
    await this.#guests.destroy(vm);
    await this.#guests.leave(vm);
  }

  /** A guest of an older decision is not the one that is meant: who decided anew took it for gone, and it may have run elsewhere. */
  async #clearOlder(vm: VmId, generation: number): Promise<void> {
    const guest = this.#guests.running.get(vm);
    if (guest && guest.key.generation < generation && this.#guests.part(vm).kind === 'runs') {
      this.#context.log.warn({ vm, generation, older: guest.key.generation }, 'an older copy of this guest is ended');
      await this.#guests.destroy(vm);
    }
    await this.#clearLeftover(vm);
  }

  async #send(order: Extract<Order, { kind: 'send' }>): Promise<void> {
    const { vm, generation, job } = order;
    const { facts, clock } = this.#context;
    if (this.#outgoing.has(job.migration)) return;
    const at = clock.now();
    const guest = this.#guests.running.get(vm);
    const part = this.#guests.part(vm);
    if ('job' in part && part.job.migration === job.migration) return;
    // The server does not know it yet, or this order was held up: what it will hear must stay true.
    if (this.#guests.hasStayed(vm, job.migration)) return;
    if (guest && part.kind !== 'runs') {
      const failure: Failure = {
        code: 'source-refused',
        message: `${job.vmName} is ${part.kind} on ${this.#context.hostName}: it cannot be sent now.`,
        hint: 'Wait for what it does now, then try again.',
      };
      facts.migration({ migration: job.migration, at, kind: 'source-running', failure });
      this.#guests.setPart(vm, part, { stayed: job.migration });
      return;
    }
    if (!guest) {
      const failure = goneFailure(job.vmName, this.#context.hostName, 'source-died');
      facts.migration({ migration: job.migration, at, kind: 'source-lost', failure });
      return;
    }
    this.#keepOutgoing(
      Outgoing.begin(this.#context, this.#guests, guest, generation, job, order.endpoint, peersOf(order)),
    );
  }

  async #cancel(vm: VmId, migration: MigrationId): Promise<void> {
    const outgoing = this.#outgoing.get(migration);
    if (outgoing) return outgoing.cancel();
    const sending = this.#context.journal.vms().some(({ part }) => 'job' in part && part.job.migration === migration);
    if (sending) return;
    const { facts, clock, hostName, journal } = this.#context;
    const base = { migration, at: clock.now() };
    if (!this.#guests.running.has(vm)) {
      // Handed over and gone, or died before it was sent: nothing runs on here.
      const failure = goneFailure(journal.vm(vm)?.name ?? vm, hostName, 'source-died');
      return facts.migration({ ...base, kind: 'source-lost', failure });
    }
    facts.migration({ ...base, kind: 'source-running', failure: null });
    this.#guests.setPart(vm, this.#guests.part(vm), { stayed: migration });
  }

  async #rollBack(vm: VmId, migration: MigrationId): Promise<void> {
    const guest = this.#guests.running.get(vm);
    const part = this.#guests.part(vm);
    if (guest && part.kind === 'handed-over' && part.job.migration === migration) {
      await this.#outgoing.get(migration)?.abandon();
      // Ending QEMU frees all its memory at once, which costs this host's cores just when clients wait for the first answer.
      if (part.kind === 'handed-over')
        await this.#context.clock.sleep(settleLeftMs(part.at, this.#context.clock.now()));
      await rollBack(this.#context, this.#guests, guest, part.job);
    }
    if (guest) return;
    // Nothing is left to go on with; and its copy never ran.
    const { facts, clock, hostName, journal } = this.#context;
    const failure = goneFailure(journal.vm(vm)?.name ?? vm, hostName, 'source-died');
    const say = () => facts.migration({ migration, at: clock.now(), kind: 'source-lost', failure });
    if ('job' in part && part.job.migration === migration) return this.#guests.leave(vm, { kind: 'none' }, say);
    say();
  }

  /** The guest runs elsewhere for good: what is left of it here goes. Never a guest that may still run here. */
  async #release({ vm, migration, generation }: Extract<Order, { kind: 'release' }>): Promise<void> {
    const part = this.#guests.part(vm);
    const ours = 'job' in part && part.job.migration === migration;
    if (ours && part.kind === 'sending' && !part.switched) {
      this.#context.log.error({ migration, vm }, 'not released: the guest runs here and is only being sent');
      return;
    }
    if (ours && (part.kind === 'handed-over' || part.kind === 'sending')) {
      // It may still be asking a target that does not answer.
      await this.#outgoing.get(migration)?.abandon();
      // Ending QEMU frees all its memory at once, which costs this host's cores just when clients wait for the first answer.
      if (part.kind === 'handed-over')
        await this.#context.clock.sleep(settleLeftMs(part.at, this.#context.clock.now()));
      await this.#guests.destroy(vm);
      await this.#guests.leave(vm);
    }
    if (part.kind === 'runs' && this.#guests.hasStayed(vm, migration)) {
      // It went on here after all, and whoever orders this has decided without knowing it: the guest is started elsewhere.
      const newest = this.#context.journal.vm(vm)?.generation ?? 0;
      if (generation >= newest) {
        await this.#guests.destroy(vm);
        await this.#guests.leave(vm, { kind: 'none' }, undefined, newest);
      }
    }
    this.#context.facts.migration({ migration, at: this.#context.clock.now(), kind: 'released' });
  }

  async #close(vm: VmId, migration: MigrationId, may: MayClose): Promise<void> {
    remember(this.#closed, migration);
    const incoming = this.#incoming.get(migration);
    const part = this.#guests.part(vm);
    const ours = 'job' in part && part.job.migration === migration;
    const say = () => this.#context.facts.migration({ migration, at: this.#context.clock.now(), kind: 'closed' });
    const refuse = (refusal: string) => this.#context.log.error({ migration, refusal }, 'the copy was not closed');
    if (incoming && ours) {
      const refusal = await incoming.close(may);
      if (refusal !== null) refuse(refusal);
      return;
    }
    // `closed` lets the source run the guest again: never said of one that runs here, or may.
    const arrived = this.#guests.hasArrived(vm, migration) && this.#guests.running.has(vm);
    if (arrived || (ours && part.kind === 'continuing')) {
      if (!may.evenIfItRan) return refuse('the guest runs here');
      if (arrived && may.unlessWhole) return refuse('the guest runs here and lacks nothing');
      await this.#guests.destroy(vm);
    }
    say();
  }

  async #powerOff(vm: VmId, job: Extract<Order, { kind: 'power-off' }>['job']): Promise<void> {
    const { facts, clock, hostName } = this.#context;
    const { migration, policy } = job;
    if (this.#guests.hasStayed(vm, migration) || this.#saidThatItStays(migration)) return;
    const guest = this.#guests.running.get(vm);
    const fact = (kind: 'sending' | 'powered-off') => facts.migration({ migration, at: clock.now(), kind });
    const before = this.#guests.part(vm);
    if (before.kind !== 'runs' && before.kind !== 'powering-off') {
      if (guest) throw new Error(`${job.vmName} is ${before.kind} here: it cannot be shut down for a cold move`);
      return fact('powered-off');
    }
    this.#guests.setPart(vm, { kind: 'powering-off', job });
    fact('sending');
    if (guest) {
      const obeyed = await pressPowerButton(guest, policy.shutdownTimeoutMs, this.#context);
      if (!obeyed && !policy.forceOff) {
        const failure: Failure = {
          code: 'shutdown-ignored',
          message: `${job.vmName} did not shut down within ${Math.round(policy.shutdownTimeoutMs / 1000)} s; it runs on at ${hostName}.`,
          hint: 'Shut it down from inside, or use --force-off to switch it off.',
        };
        facts.migration({ migration, at: clock.now(), kind: 'source-running', failure });
        this.#guests.settle(vm, { stayed: migration });
        return;
      }
      if (!obeyed) await guest.destroy();
    }
    await this.#guests.leave(vm, { kind: 'none' }, undefined, this.#context.journal.vm(vm)?.generation);
    fact('powered-off');
  }

  /** And the server may not know it yet, though an agent before this one has said it. */
  #saidThatItStays(migration: MigrationId): boolean {
    return this.#context.facts
      .unacknowledged()
      .some(({ fact: { fact } }) => fact.kind === 'source-running' && fact.migration === migration);
  }

  async #powerOn(order: Extract<Order, { kind: 'power-on' }>): Promise<void> {
    const { vm, generation, job } = order;
    const { facts, clock, hostName } = this.#context;
    if (this.#guests.isOver(vm, generation)) {
      // It ran, and the server may have heard of its end before it heard that.
      const failure = goneFailure(job.vmName, hostName, 'target-died');
      return facts.migration({ migration: job.migration, at: clock.now(), kind: 'target-lost', failure });
    }
    await this.#clearOlder(vm, generation);
    try {
      if (!this.#guests.running.has(vm))
        await this.#guests.start(vm, generation, job.vmName, job.running.spec, job.running);
    } catch (error) {
      const failure = failureOf(error, `${job.vmName} could not be started on ${this.#context.hostName}.`);
      facts.migration({ migration: job.migration, at: clock.now(), kind: 'target-failed', failure });
      return this.#isOver(vm, generation, job.vmName);
    }
    facts.migration({ migration: job.migration, at: clock.now(), kind: 'resumed', withFaults: false }); // as above
  }

  /** Whoever hears of a failed start decides anew: the same order must not succeed later, and no other of this VM comes in between. */
  #isOver(vm: VmId, generation: number, name: string): Promise<void> {
    return insist(this.#context, `that the start of ${name} has failed is not written down`, () =>
      this.#guests.setPart(vm, this.#guests.part(vm), { generation, over: generation, name }),
    );
  }

  #keepIncoming(incoming: Incoming): void {
    this.#incoming.set(incoming.job.migration, incoming);
    const { migration } = incoming.job;
    void incoming.over
      .catch((error: unknown) => this.#bug(error, 'receive'))
      .finally(() => {
        const { kind } = this.#guests.part(incoming.vm);
        if (kind === 'runs') remember(this.#arrived, migration);
        if (kind === 'none') remember(this.#lost, migration);
        this.#incoming.delete(migration);
      });
  }

  #keepOutgoing(outgoing: Outgoing): void {
    this.#outgoing.set(outgoing.job.migration, outgoing);
    void outgoing.over
      .catch((error: unknown) => this.#bug(error, 'send'))
      .finally(() => this.#outgoing.delete(outgoing.job.migration));
  }

  #bug(error: unknown, order: string): void {
    this.#context.log.error({ error, order, words: messageOf(error) }, 'an order was not carried out');
  }
}

function peersOf({ targetPeer, otherPeers }: Peers): Peers {
  return { targetPeer, ...(otherPeers && { otherPeers }) };
}

/** Each VM's orders one after another, but a guest that takes a minute to shut down holds up nothing else. */
function queueOf(order: Order): string {
  if (order.kind === 'stop') return `${order.vm}/${order.force ? 'switch-off' : 'stop'}`;
  return order.kind === 'power-off' ? `${order.vm}/power-off` : order.vm;
}

/** Never longer than the whole of it: the host's clock may have been set back since. */
function settleLeftMs(handedOverAt: number, now: number): number {
  return Math.min(settleMs, Math.max(0, handedOverAt + settleMs - now));
}

/** Does a guest in this part run here, or may it yet? */
function mayRun(part: Part): boolean {
  return part.kind !== 'none' && part.kind !== 'receiving' && part.kind !== 'gone-unrun' && part.kind !== 'handed-over';
}

/** The newest thousand: what came before is long over. */
function remember(set: Set<MigrationId>, migration: MigrationId): void {
  set.add(migration);
  for (const oldest of set) {
    if (set.size <= rememberedAtMost) return;
    set.delete(oldest);
  }
}

/** Guests that may be paused come first. */
function urgency(entry: VmEntry): number {
  const order = ['continuing', 'handed-over', 'sending', 'receiving', 'powering-off'];
  const index = order.indexOf(entry.part.kind);
  return index === -1 ? order.length : index;
}

function goneFailure(vmName: string, host: string, code: 'source-died' | 'target-died'): Failure {
  return {
    code,
    message: `The QEMU process of ${vmName} on ${host} is gone.`,
    hint: `Look at ${host}, then start the VM again: drover vm start ${vmName}`,
  };
}
