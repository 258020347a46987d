/**
 * Tasks inside a guest, over its agent: two small shell scripts that are given to the guest's `sh` with each call, and what
 * they leave in /var/lib/drover-tasks/<claim> there. The guest's own file system decides who was first:
 *
 *   mkdir <claim>     succeeds once, and whoever did it runs the task, or has cancelled it
 *   self              /proc/<pid>/stat of the script that runs it: is it still that process?
 *   pid how           of the command and its session; why it is being ended
 *   output            what it wrote to both of its streams, the first bytes; by way of a pipe that has both its ends before
 *                     anybody is started: one end that waits for the other would wait for ever when that is ended first
 *   done              "<boot> <uptime> <how> <status>": written last, so that what is beside it is whole
 *
 * A claim names the boot in which it may be run, and the script compares it with the kernel's: a guest that has booted since
 * runs nothing, also where its file system forgets (a live system, an initrd).
 *
 * Needs of the guest: sh, mkdir, mkfifo, head, cat, sleep, rm, setsid (busybox has them). Not here: the protocol (guest-agent.ts).
 */
import { systemClock } from '../../runtime/clock.ts';
import type { GuestTasks, TaskClaim, TaskProgram, TaskSeen } from '../hypervisor.ts';
import { GuestAgentRefusal, type GuestAgent } from './guest-agent.ts';

const defaultRoot = '/var/lib/drover-tasks';
const bootIdPath = '/proc/sys/kernel/random/boot_id';
/** From asking a task to end until it is made to. */
const graceSeconds = 5;
/** Ends that are on record elsewhere are kept in the guest for a day, looked for once an hour. */
const keptSeconds = 86_400;
const tidyEverySeconds = 3600;
const smallFileBytes = 4096;
/** By this exit code the script says that it could not make its claim, and nobody else did. */
const cannotClaim = 74;

/** Arguments: claim, boot, limit in seconds, bytes of output, then NAME=value..., `--`, then the command. */
const runScript = (root: string): string => `
claim=$1 boot=$2 limit=$3 most=$4; shift 4
umask 077
export PATH="\${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
read -r now < ${bootIdPath}
[ "$now" = "$boot" ] || exit 75
[ -d ${root} ] || mkdir -p ${root}
cd ${root} || exit ${cannotClaim}
if ! mkdir "$claim"; then [ -d "$claim" ] && exit 76; exit ${cannotClaim}; fi
cd "$claim" || exit 77
read -r stat < "/proc/$$/stat"
echo "$stat" > self
while [ "$1" != -- ]; do export "$1"; shift; done
shift
stop() {
  kill -TERM "-$pid" || kill -TERM "$pid"
  sleep ${graceSeconds}
  [ ! -e done ] || exit 0
  kill -KILL "-$pid"
  kill "$reader"
}
mkfifo pipe
exec 3<> pipe 4< pipe 5> pipe 3>&-
rm -f pipe
{ head -c "$most" > output; cat > /dev/null; } <&4 5>&- &
reader=$!
( cd / && exec setsid "$@" 4<&- 5>&- ) < /dev/null >&5 2>&1 &
pid=$!
exec 4<&- 5>&-
echo "$pid" > pid
( trap 'kill "$timer"; exit' TERM; sleep "$limit" & timer=$!; wait "$timer"; [ -e how ] || echo timed-out > how; stop ) &
watch=$!
[ ! -e how ] || stop &
wait "$pid"
status=$?
how=exited
[ ! -e how ] || read -r how < how
wait "$reader"
kill "$watch"
read -r up rest < /proc/uptime
echo "$boot \${up%.*} $how $status" > done
cd ..
last=0
[ ! -e tidied ] || read -r last < tidied
up=\${up%.*}
[ "$last" -le "$up" ] || last=0
[ $((up - last)) -ge ${tidyEverySeconds} ] || exit 0
echo "$up" > tidied
for old in */done; do
  read -r itsboot itsup rest < "$old" || continue
  [ "$itsboot" = "$boot" ] || itsup=0
  [ $((up - itsup)) -lt ${keptSeconds} ] || rm -rf "\${old%/done}"
done
`;

/** Arguments: claim, boot. Whoever comes first has the claim: then the task never runs. */
const cancelScript = (root: string): string => `
claim=$1 boot=$2
umask 077
read -r now < ${bootIdPath}
[ "$now" = "$boot" ] || exit 75
[ -d ${root} ] || mkdir -p ${root}
cd ${root} || exit ${cannotClaim}
if mkdir "$claim"; then echo "$boot 0 never-ran 0" > "$claim/done"; exit 0; fi
cd "$claim" || exit ${cannotClaim}
[ ! -e done ] || exit 0
[ -e how ] || echo cancelled > how
[ -e pid ] || exit 0
read -r pid < pid
kill -TERM "-$pid" || kill -TERM "$pid"
sleep ${graceSeconds}
[ -e done ] || kill -KILL "-$pid"
`;

type AgentCalls = Pick<GuestAgent, 'exec' | 'execStatus' | 'readFile'>;

/**
 * @param root in the guest; another one for tests
 * @param checkEveryMs how often the process of a task is looked at: what ends in an orderly way says so itself
 */
export function tasksOver(
  agent: AgentCalls,
  { root = defaultRoot, checkEveryMs = 5000 }: { root?: string; checkEveryMs?: number } = {},
): GuestTasks {
  /** What was asked for here last: the pid of its script, which may say why it has claimed nothing, or the agent's refusal. */
  const asked = new Map<string, number | GuestAgentRefusal>();
  /** Those seen to run: `self` of each, and when its process was looked at last, monotonic. */
  const alive = new Map<string, { readonly self: string; checkedAt: number }>();

  const boot = async (signal: AbortSignal): Promise<string> => {
    const text = (await agent.readFile(bootIdPath, smallFileBytes, signal))?.toString('latin1').trim() ?? '';
    if (!/^[0-9a-f-]{36}$/.test(text)) throw new Error('the guest does not say which boot this is');
    return text;
  };
  const fileOf = (claim: TaskClaim, name: string, limitBytes: number, signal: AbortSignal) =>
    agent.readFile(`${root}/${claim.id}/${name}`, limitBytes, signal);

  const end = async (task: TaskProgram, signal: AbortSignal): Promise<TaskSeen | null> => {
    const said = parseEnd((await fileOf(task, 'done', smallFileBytes, signal))?.toString('latin1') ?? '');
    if (said === null) return null;
    const all = (await fileOf(task, 'output', task.outputLimitBytes + 1, signal)) ?? Buffer.alloc(0);
    const output = all.subarray(0, task.outputLimitBytes).toString('utf8');
    return { kind: 'ended', ...said, output, truncated: all.length > task.outputLimitBytes };
  };

  const look = async (task: TaskProgram, signal: AbortSignal): Promise<TaskSeen> => {
    const ended = await end(task, signal);
    if (ended) return ended;
    const known = alive.get(task.id);
    const now = systemClock.monotonic();
    if (known && now - known.checkedAt < checkEveryMs) return { kind: 'running' };
    if (known === undefined) {
      const self = (await fileOf(task, 'self', smallFileBytes, signal))?.toString('latin1') ?? '';
      // Without its end it is just being written, or its guest went down while it was.
      if (self.endsWith('\n')) {
        alive.set(task.id, { self, checkedAt: now });
        return { kind: 'running' };
      }
      if ((await boot(signal)) !== task.boot) return { kind: 'gone', why: 'other-boot' };
      return (await refusal(agent, asked.get(task.id), signal)) ?? { kind: 'unclaimed' };
    }
    if ((await boot(signal)) === task.boot) {
      const stat = await agent.readFile(`/proc/${processIn(known.self).pid}/stat`, smallFileBytes, signal);
      if (stat !== null && isSameProcess(known.self, stat.toString('latin1'))) {
        known.checkedAt = now;
        return { kind: 'running' };
      }
      // It may have ended between the two looks.
      return (await end(task, signal)) ?? { kind: 'gone', why: 'vanished' };
    }
    return { kind: 'gone', why: 'other-boot' };
  };

  return {
    boot,
    async run(task, signal) {
      const { id, boot: wanted, env, limitMs, outputLimitBytes, command } = task;
      const seconds = String(Math.max(1, Math.ceil(limitMs / 1000)));
      const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      // One byte more than is kept tells that there was more.
      const words = [id, wanted, seconds, String(outputLimitBytes + 1), ...settings, '--', ...command];
      try {
        asked.set(id, await agent.exec('/bin/sh', ['-c', runScript(root), 'drover-task', ...words], signal));
      } catch (error) {
        if (!(error instanceof GuestAgentRefusal)) throw error;
        asked.set(id, error);
      }
    },
    async look(task, signal) {
      const seen = await look(task, signal);
      if (seen.kind === 'running' || seen.kind === 'unclaimed') return seen;
      asked.delete(task.id);
      alive.delete(task.id);
      return seen;
    },
    async cancel(claim, signal) {
      await agent.exec('/bin/sh', ['-c', cancelScript(root), 'drover-task', claim.id, claim.boot], signal);
    },
  };
}

/** Why what was asked for here has claimed nothing and never will; null when that is not known. */
async function refusal(
  agent: AgentCalls,
  asked: number | GuestAgentRefusal | undefined,
  signal: AbortSignal,
): Promise<TaskSeen | null> {
  if (asked === undefined) return null;
  if (typeof asked !== 'number') return { kind: 'refused', says: `the guest's agent refused: ${asked.message}` };
  const status = await agent.execStatus(asked, signal).catch(() => null); // once it has told the end, the agent forgets it
  if (status?.exited !== true || status.exitCode !== cannotClaim) return null;
  return { kind: 'refused', says: 'the guest cannot write into /var/lib' };
}

const ends = ['exited', 'timed-out', 'cancelled', 'never-ran'] as const;

/** Null: not written yet, or not to the end. */
export function parseEnd(text: string): { how: (typeof ends)[number]; status: number } | null {
  const match = /^\S+ \d+ (\S+) (\d{1,3})\n$/.exec(text);
  const how = ends.find((each) => each === match?.[1]);
  return how === undefined ? null : { how, status: Number(match?.[2]) };
}

/** The process that a line of /proc/<pid>/stat is about: its pid and when it started, in clock ticks since the boot. */
function processIn(stat: string): { pid: number; startTicks: string } {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid: Number.parseInt(stat, 10) || 0, startTicks: fields[19] ?? '' };
}

export function isSameProcess(before: string, now: string): boolean {
  const state = now.slice(now.lastIndexOf(')') + 2, now.lastIndexOf(')') + 3);
  return (
    state !== 'Z' && processIn(before).startTicks !== '' && processIn(before).startTicks === processIn(now).startTicks
  );
}
