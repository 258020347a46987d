/** A state in a word: shape, word and colour say the same. */
import type { HostView, MigrationView, VmView } from '../../wire/endpoints.ts';
import { Icon, type IconName } from './icon.tsx';

type Tone = 'ok' | 'run' | 'warn' | 'bad' | 'quiet';

export function Badge({ tone, icon, children }: { tone: Tone; icon: IconName; children: string }) {
  return (
    <span className={`badge ${tone}`}>
      <Icon name={icon} />
      {children}
    </span>
  );
}

type Look = readonly [tone: Tone, icon: IconName, word: string];

function lookOfHost(host: HostView): Look {
  if (host.fenced !== null) return ['bad', 'off', 'fenced'];
  if (host.sleep !== null && host.sleep.state !== 'awake') return ['quiet', 'moon', host.sleep.state];
  if (host.state === 'silent') return ['bad', 'bad', 'silent'];
  if (host.sickness !== null) return ['warn', 'warn', host.sickness.severity];
  if (host.drain !== null) return host.drain === 'drained' ? ['quiet', 'lock', 'drained'] : ['run', 'run', host.drain];
  return host.cordoned ? ['quiet', 'lock', 'cordoned'] : ['ok', 'ok', 'up'];
}

export function HostBadge({ host }: { host: HostView }) {
  const [tone, icon, word] = lookOfHost(host);
  return (
    <Badge tone={tone} icon={icon}>
      {word}
    </Badge>
  );
}

const vmLooks = {
  creating: ['run', 'wait', 'creating'],
  stopped: ['quiet', 'off', 'stopped'],
  starting: ['run', 'wait', 'starting'],
  running: ['ok', 'ok', 'running'],
  stopping: ['run', 'wait', 'stopping'],
  waiting: ['warn', 'wait', 'waiting'],
  crashed: ['bad', 'bad', 'crashed'],
  deleting: ['quiet', 'wait', 'deleting'],
} as const satisfies Record<VmView['state'], Look>;

export function VmBadge({ vm }: { vm: VmView }) {
  const [tone, icon, word] = vm.migration === null ? vmLooks[vm.state] : (['run', 'run', 'moving'] as const);
  return (
    <Badge tone={tone} icon={icon}>
      {word}
    </Badge>
  );
}

export function PhaseBadge({ migration }: { migration: Pick<MigrationView, 'phase' | 'guest'> }) {
  switch (migration.phase) {
    case 'completed':
      return (
        <Badge tone="ok" icon="ok">
          completed
        </Badge>
      );
    case 'failed':
      return (
        <Badge tone="bad" icon="bad">
          {migration.guest === 'lost' ? 'failed, guest lost' : 'failed'}
        </Badge>
      );
    case 'cancelled':
      return (
        <Badge tone="quiet" icon="off">
          cancelled
        </Badge>
      );
    case 'armed':
      return (
        <Badge tone="warn" icon="wait">
          armed
        </Badge>
      );
    default:
      return (
        <Badge tone="run" icon="run">
          {migration.phase}
        </Badge>
      );
  }
}
