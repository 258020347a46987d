/** A real Prometheus for tests: where it is, started on a configuration, asked. Not here: what is asked of it. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

const repository = join(import.meta.dirname, '..', '..');
export const rulesFile = join(repository, 'packaging/prometheus/drover.rules.yml');
export const dashboardFile = join(repository, 'packaging/grafana/drover.json');

function located(program: 'prometheus' | 'promtool'): string {
  const places = [join(repository, '.drover/prometheus/usr/bin', program), `/usr/bin/${program}`];
  const found = places.find((place) => existsSync(place));
  if (found === undefined) throw new Error(`There is no ${program}: run npm run setup`);
  return found;
}

/** @returns what it printed. @throws Error with that, when it is not content */
export async function promtool(args: readonly string[], input = ''): Promise<string> {
  // Not waited for by standing still: Prometheus asks this very process meanwhile.
  const child = spawn(located('promtool'), args, { stdio: 'pipe', timeout: 60_000 });
  child.stdin.end(input);
  const [out, error, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  if (code === 0) return out;
  throw new Error(`promtool ${args.join(' ')}: ${String(code)}\n${out}${error}`);
}

export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [at: number, value: string];
}

interface Target {
  readonly labels: Readonly<Record<string, string>>;
  readonly health: string;
  readonly lastError: string;
}

export class Prometheus {
  readonly #directory: string;
  readonly #process: ChildProcess;
  readonly #url: string;

  private constructor(directory: string, process: ChildProcess, url: string) {
    this.#directory = directory;
    this.#process = process;
    this.#url = url;
  }

  /** @param scrapes the part `scrape_configs`, as JSON; Drover's rules are loaded */
  static async start(scrapes: readonly object[]): Promise<Prometheus> {
    const directory = mkdtempSync(join(tmpdir(), 'drover-prometheus-'));
    const config = join(directory, 'prometheus.yml');
    const settings = { global: { scrape_interval: '500ms', scrape_timeout: '450ms', evaluation_interval: '1s' } };
    // JSON is YAML.
    writeFileSync(config, JSON.stringify({ ...settings, rule_files: [rulesFile], scrape_configs: scrapes }));
    const listen = `127.0.0.1:${await freePort()}`;
    const child = spawn(
      located('prometheus'),
      [`--config.file=${config}`, `--storage.tsdb.path=${join(directory, 'data')}`, `--web.listen-address=${listen}`],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const said: string[] = [];
    for await (const line of createInterface({ input: child.stderr })) {
      said.push(line);
      if (line.includes('Server is ready to receive web requests')) {
        child.stderr.resume();
        return new Prometheus(directory, child, `http://${listen}`);
      }
    }
    rmSync(directory, { recursive: true, force: true });
    throw new Error(`Prometheus did not come up:\n${said.join('\n')}`);
  }

  /** @returns the series of an instant vector; a scalar is one series. @throws Error when it is no expression */
  async query(expression: string): Promise<Sample[]> {
    const { resultType, result } = (await this.#get(`query?query=${encodeURIComponent(expression)}`)) as {
      resultType: string;
      result: Sample[] | Sample['value'];
    };
    return resultType === 'vector' ? (result as Sample[]) : [{ metric: {}, value: result as Sample['value'] }];
  }

  /** Resolves when the expression says something. @throws Error when it does not in time */
  async until(expression: string, timeoutMs = 20_000): Promise<Sample[]> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = await this.query(expression);
      if (found.length > 0) return found;
      if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${expression}`);
      await sleep(100);
    }
  }

  async targets(): Promise<readonly Target[]> {
    return ((await this.#get('targets?state=active')) as { activeTargets: Target[] }).activeTargets;
  }

  /** Names of the alerts that fire. */
  async firing(): Promise<string[]> {
    const { alerts } = (await this.#get('alerts')) as { alerts: { state: string; labels: { alertname: string } }[] };
    return alerts.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname);
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null) {
      this.#process.kill('SIGTERM');
      await once(this.#process, 'exit');
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #get(path: string): Promise<unknown> {
    const answer = await fetch(`${this.#url}/api/v1/${path}`);
    const { status, data, error } = (await answer.json()) as { status: string; data: unknown; error?: string };
    if (status === 'success') return data;
    throw new Error(`${decodeURIComponent(path)}: ${error}`);
  }
}

/** Every expression of the alert rules, by its alert. */
export function ruleExpressions(): Map<string, string> {
  const rules = readFileSync(rulesFile, 'utf8');
  const found = [...rules.matchAll(/- alert: (\w+)\n\s+expr: (?:>-\n)?([\s\S]+?)\n\s+(?:for|labels):/g)];
  return new Map(found.map(([, alert = '', expr = '']) => [alert, expr.replaceAll(/\s+/g, ' ').trim()]));
}

/** Every expression of the dashboard, by its panel; what Grafana would put in for variables is put in. */
export function dashboardExpressions(): Map<string, string> {
  const { panels } = JSON.parse(readFileSync(dashboardFile, 'utf8')) as {
    panels: { title: string; targets?: { refId: string; expr: string }[] }[];
  };
  return new Map(
    panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ refId, expr }) => [`${title} ${refId}`, expr.replaceAll('$__rate_interval', '1m')] as const),
    ),
  );
}

/** The selectors in an expression, with their matchers and without ranges: what must be there before anything is computed. */
export function selectorsIn(expression: string): string[] {
  return [...expression.matchAll(/\b(?:drover_\w+|process_\w+|nodejs_\w+|up)\b(?:\{[^}]*\})?/g)].map(
    ([found]) => found,
  );
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
