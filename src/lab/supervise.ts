/**
 * The lab's stand-in for systemd: one detached process that keeps the server and the agents running, starts again what
 * dies (ever later while it keeps dying), and lets `lab break` kill, hold dead or freeze one of them. Asked over a Unix
 * socket in the lab's directory: one JSON line in, one out. Also runs the blackout prober (blackout.ts).
 *
 *     waiting -> running -> (died) waiting -> running …        held -> running by `ensure`
 *     off: its host has no power; running again when that is switched on, by its BMC or by `ensure`
 *
 * When it is killed itself its children run on; the next one ends those and starts its own. Guests are nobody's children
 * here and are never touched.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, chmodSync, closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { messageOf } from '../model/failure.ts';
import type { Log } from '../runtime/log.ts';
import { commandLine, endAll, isAlive, processId, type ProcessId } from './processes.ts';
import { readJson, writeJson } from './state.ts';

const firstPauseMs = 100;
const longestPauseMs = 5000;
/** A child that lived this long died of something new: the pauses start again from the first. */
const healthyMs = 10_000;
const politeEndMs = 5000;
const maxRequestBytes = 64 * 1024;

const childPlan = z.object({
  name: z.string(),
  command: z.string(),
  args: z.array(z.string()),
  /** Part of the line on stdout that says it can be used. */
  readyLine: z.string(),
  log: z.string(),
  /** On whose power it runs; absent: it is always there. */
  host: z.string().optional(),
});
export type ChildPlan = z.infer<typeof childPlan>;
export const supervisorPlan = z.object({ children: z.array(childPlan) });

const childStatus = z.object({
  name: z.string(),
  state: z.enum(['waiting', 'running', 'held', 'frozen', 'off']),
  ready: z.boolean(),
  pid: z.number().nullable(),
  starts: z.number(),
});
export type ChildStatus = z.infer<typeof childStatus>;

const request = z.discriminatedUnion('do', [
  z.object({ do: z.literal('status') }),
  /** Answers when every child that is not held has said its line. */
  z.object({ do: z.literal('ready'), timeoutMs: z.number() }),
  z.object({ do: z.literal('kill'), name: z.string(), afterwards: z.enum(['restart', 'hold']) }),
  z.object({ do: z.literal('freeze'), name: z.string() }),
  z.object({ do: z.literal('thaw'), name: z.string() }),
  /** Starts one that is held. */
  z.object({ do: z.literal('start'), name: z.string() }),
  /** Frees and starts everything that is held or frozen. */
  z.object({ do: z.literal('ensure') }),
  z.object({ do: z.literal('power'), host: z.string(), state: z.enum(['on', 'off']) }),
  z.object({ do: z.literal('stop') }),
]);
export type SupervisorRequest = z.infer<typeof request>;
const reply = z.object({ error: z.string().nullable(), children: z.array(childStatus) });

/** What happens to a host itself when its power changes; its programs are the supervisor's. */
export interface Power {
  /** Everything of the host is dead when it resolves. */
  cut(host: string): Promise<void>;
  restore(host: string): Promise<void>;
  /** At the start: a supervisor was killed while they were off. */
  isOff(host: string): boolean;
}

interface Child {
  readonly plan: ChildPlan;
  state: ChildStatus['state'];
  ready: boolean;
  starts: number;
  pauseMs: number;
  startedAt: number;
  process: ChildProcess | undefined;
  timer: NodeJS.Timeout | undefined;
}

export class Supervisor {
  readonly #children: Map<string, Child>;
  readonly #recordFile: string;
  readonly #log: Log;
  readonly #power: Power | undefined;
  /** Switching is done one after another. */
  #switching: Promise<void> = Promise.resolve();
  readonly #watchers = new Set<() => void>();
  #server: Server | undefined;
  #stopping = false;
  readonly #stopped = Promise.withResolvers<void>();

  constructor(options: { children: readonly ChildPlan[]; recordFile: string; log: Log; power?: Power }) {
    this.#power = options.power;
    this.#children = new Map(
      options.children.map((plan) => [
        plan.name,
        {
          plan,
          state: 'waiting',
          ready: false,
          starts: 0,
          pauseMs: firstPauseMs,
          startedAt: 0,
          process: undefined,
          timer: undefined,
        },
      ]),
    );
    this.#recordFile = options.recordFile;
    this.#log = options.log;
  }

  /** Ends what an earlier supervisor left, then starts everything. */
  async start(): Promise<void> {
    await endRecorded(this.#recordFile, this.#log);
    for (const child of this.#children.values()) {
      if (child.plan.host !== undefined && this.#power?.isOff(child.plan.host)) child.state = 'off';
      else this.#launch(child);
    }
  }

  /** Resolves when `stop` was asked for and everything has ended. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  status(): ChildStatus[] {
    return [...this.#children.values()].map((child) => ({
      name: child.plan.name,
      state: child.state,
      ready: child.ready,
      pid: child.process?.pid ?? null,
      starts: child.starts,
    }));
  }

  /** @throws Error naming who is not ready after `timeoutMs` */
  async ready(timeoutMs: number): Promise<void> {
    const late = () =>
      [...this.#children.values()].filter(({ state, ready }) => state !== 'held' && state !== 'off' && !ready);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => {
      if (late().length === 0) resolve();
    };
    const timer = setTimeout(() => {
      const names = late().map((child) => `${child.plan.name} (started ${child.starts} times, log: ${child.plan.log})`);
      reject(new Error(`not ready after ${timeoutMs} ms: ${names.join(', ')}`));
    }, timeoutMs);
    this.#watchers.add(look);
    look();
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#watchers.delete(look);
    }
  }

  /** Kills a child as a crash does. Resolves when it is gone. */
  async kill(name: string, afterwards: 'restart' | 'hold'): Promise<void> {
    const child = this.#find(name);
    if (afterwards === 'hold') {
      clearTimeout(child.timer);
      child.state = 'held';
    }
    const running = child.process;
    if (!running) return;
    const gone = new Promise<void>((resolve) => running.once('close', () => resolve()));
    running.kill('SIGKILL');
    await gone;
  }

  freeze(name: string): void {
    const child = this.#find(name);
    if (child.process?.kill('SIGSTOP') !== true) throw new Error(`${name} does not run, so it cannot be frozen`);
    child.state = 'frozen';
  }

  thaw(name: string): void {
    const child = this.#find(name);
    if (child.state !== 'frozen') return;
    child.process?.kill('SIGCONT');
    child.state = 'running';
  }

  /** Switches a host. Resolves when nothing of it lives, or its programs are being started. */
  power(host: string, state: 'on' | 'off'): Promise<void> {
    const done = this.#switching.then(() => (state === 'off' ? this.#switchOff(host) : this.#switchOn(host)));
    this.#switching = done.catch(() => {}); // whoever asked is told; the next may be switched all the same
    return done;
  }

  async #switchOff(host: string): Promise<void> {
    const children = this.#on(host);
    const gone = children.flatMap((child) => {
      clearTimeout(child.timer);
      child.state = 'off';
      const running = child.process;
      return running ? [new Promise<void>((resolve) => running.once('close', () => resolve()))] : [];
    });
    await this.#power?.cut(host);
    await Promise.all(gone);
  }

  async #switchOn(host: string): Promise<void> {
    const off = this.#on(host).filter(({ state }) => state === 'off');
    if (off.length === 0) return;
    await this.#power?.restore(host);
    for (const child of off) {
      child.pauseMs = firstPauseMs;
      this.#launch(child);
    }
  }

  #on(host: string): Child[] {
    const children = [...this.#children.values()].filter(({ plan }) => plan.host === host);
    if (children.length === 0) throw new Error(`nothing here runs on a host called ${host}`);
    return children;
  }

  async ensure(): Promise<void> {
    const dark = [...this.#children.values()].flatMap(({ plan, state }) => (state === 'off' ? (plan.host ?? []) : []));
    for (const host of new Set(dark)) await this.power(host, 'on');
    for (const child of this.#children.values()) {
      this.thaw(child.plan.name);
      this.startHeld(child.plan.name);
    }
  }

  startHeld(name: string): void {
    const child = this.#find(name);
    if (child.process) return;
    clearTimeout(child.timer);
    child.pauseMs = firstPauseMs;
    this.#launch(child);
  }

  async stop(): Promise<void> {
    if (this.#stopping) return this.#stopped.promise;
    this.#stopping = true;
    const running: ProcessId[] = [];
    for (const child of this.#children.values()) {
      clearTimeout(child.timer);
      child.process?.kill('SIGCONT'); // a frozen process takes no SIGTERM
      const id = child.process?.pid === undefined ? undefined : processId(child.process.pid);
      if (id) running.push(id);
    }
    await endAll(running, politeEndMs);
    this.#server?.close();
    this.#stopped.resolve();
  }

  /** Takes requests on the lab's socket; replaces the socket of a supervisor that was killed. */
  async listen(socketPath: string): Promise<void> {
    rmSync(socketPath, { force: true });
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(socketPath, resolve);
    });
    chmodSync(socketPath, 0o600);
  }

  #serve(socket: Socket): void {
    let text = '';
    socket.on('error', () => {}); // who asked is gone; nobody to tell
    socket.setEncoding('utf8');
    socket.on('data', (part: string) => {
      text += part;
      if (text.length > maxRequestBytes) return socket.destroy();
      if (!text.includes('\n')) return;
      const line = text;
      text = '';
      void this.#answer(line).then((error) => {
        socket.end(`${JSON.stringify({ error, children: this.status() })}\n`);
      });
    });
  }

  /** @returns what went wrong, or null */
  async #answer(line: string): Promise<string | null> {
    try {
      const asked = request.parse(JSON.parse(line));
      if (asked.do === 'ready') await this.ready(asked.timeoutMs);
      if (asked.do === 'kill') await this.kill(asked.name, asked.afterwards);
      if (asked.do === 'freeze') this.freeze(asked.name);
      if (asked.do === 'thaw') this.thaw(asked.name);
      if (asked.do === 'start') this.startHeld(asked.name);
      if (asked.do === 'ensure') await this.ensure();
      if (asked.do === 'power') await this.power(asked.host, asked.state);
      if (asked.do === 'stop') await this.stop();
      return null;
    } catch (error) {
      return messageOf(error);
    }
  }

  #find(name: string): Child {
    const child = this.#children.get(name);
    if (!child) throw new Error(`nothing here is called ${name}; there are ${[...this.#children.keys()].join(', ')}`);
    return child;
  }

  #launch(child: Child): void {
    const { plan } = child;
    mkdirSync(dirname(plan.log), { recursive: true });
    const log = openSync(plan.log, 'a');
    const started = spawn(plan.command, plan.args, { stdio: ['ignore', 'pipe', log] });
    closeSync(log);
    child.process = started;
    child.state = 'running';
    child.starts++;
    child.startedAt = performance.now();
    this.#record();
    // Null only when the process could not be made; `error` says so.
    if (started.stdout)
      createInterface({ input: started.stdout }).on('line', (line) => {
        appendFileSync(plan.log, `${line}\n`);
        if (!line.includes(plan.readyLine)) return;
        child.ready = true;
        for (const look of this.#watchers) look();
      });
    started.on('error', (error) => this.#log.error({ child: plan.name, error }, 'cannot be started'));
    started.on('close', (code, signal) => this.#ended(child, code, signal));
  }

  #ended(child: Child, code: number | null, signal: NodeJS.Signals | null): void {
    child.process = undefined;
    child.ready = false;
    this.#record();
    if (this.#stopping) return;
    this.#log.warn({ child: child.plan.name, code, signal, state: child.state }, 'ended');
    if (child.state === 'held' || child.state === 'off') return;
    child.state = 'waiting';
    if (performance.now() - child.startedAt > healthyMs) child.pauseMs = firstPauseMs;
    child.timer = setTimeout(() => this.#launch(child), child.pauseMs);
    child.pauseMs = Math.min(longestPauseMs, child.pauseMs * 2);
  }

  #record(): void {
    const running = [...this.#children.values()].flatMap(({ plan, process: started }) => {
      const id = started?.pid === undefined ? undefined : processId(started.pid);
      return id ? [{ ...id, lastArgument: plan.args.at(-1) ?? '' }] : [];
    });
    writeJson(this.#recordFile, { children: running });
  }
}

const childRecords = z.object({
  children: z.array(z.object({ pid: z.number(), startTime: z.number(), lastArgument: z.string() })),
});

/** Ends the children of a supervisor that is gone: same pid, same start time, same command line. */
export async function endRecorded(recordFile: string, log?: Log): Promise<void> {
  const left = (readJson(recordFile, childRecords)?.children ?? []).filter(
    (each) => isAlive(each) && commandLine(each.pid).at(-1) === each.lastArgument,
  );
  if (left.length > 0) log?.warn({ pids: left.map(({ pid }) => pid) }, 'ending what an earlier supervisor left');
  await endAll(left, politeEndMs);
}

/** Asks the lab's supervisor. @returns undefined when there is none. @throws Error with its refusal */
export async function askSupervisor(
  socketPath: string,
  asked: SupervisorRequest,
  deadlineMs = 15_000,
): Promise<ChildStatus[] | undefined> {
  const socket = connect(socketPath);
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
  let text = '';
  socket.setEncoding('utf8').setTimeout(deadlineMs, () => reject(new Error("the lab's supervisor does not answer")));
  socket.on('connect', () => socket.write(`${JSON.stringify(asked)}\n`));
  socket.on('data', (part: string) => (text += part));
  socket.on('end', () => resolve(text));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(undefined);
    else reject(error);
  });
  try {
    const answered = await promise;
    if (answered === undefined || answered === '') return undefined;
    const { error, children } = reply.parse(JSON.parse(answered));
    if (error !== null) throw new Error(error);
    return children;
  } finally {
    socket.destroy();
  }
}

/** Where a child's output goes. */
export function logOf(logs: string, child: string): string {
  return join(logs, `${child}.log`);
}
