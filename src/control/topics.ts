/** What an event is about in two words, for who wants only some: `migration.completed`, `failure.link-lost`, `drain.drained`. */
import type { EventView } from '../wire/endpoints.ts';

/** The topics of an event, and which thing it is about; none for what is only told live. */
export function topicsOf(event: EventView): { readonly about: string; readonly topics: readonly string[] } {
  switch (event.type) {
    case 'migration': {
      const { id, phase, failure } = event.migration;
      return { about: id, topics: [`migration.${phase}`, ...(failure === null ? [] : [`failure.${failure.code}`])] };
    }
    case 'drain':
      return { about: event.drain.id, topics: [`drain.${event.drain.state}`] };
    case 'vm': {
      const { id, state } = event.vm;
      return { about: id, topics: [`vm.${state}`, ...(state === 'crashed' ? ['failure.vm-crashed'] : [])] };
    }
    case 'vm-removed':
      return { about: event.id, topics: ['vm.removed'] };
    case 'host': {
      const { id, fenced, state, cordoned } = event.host;
      const now = fenced === null ? (state === 'silent' ? 'silent' : cordoned ? 'cordoned' : 'up') : 'fenced';
      return { about: id, topics: [`host.${now}`] };
    }
    case 'host-removed':
      return { about: event.id, topics: ['host.removed'] };
    case 'recovery': {
      const { id, endedAt } = event.recovery;
      return { about: id, topics: endedAt === null ? ['recovery.begun', 'failure.host-lost'] : ['recovery.ended'] };
    }
    case 'task': {
      const { id, state, ended, succeeded } = event.task;
      return { about: id, topics: [`task.${state}`, ...(ended && !succeeded ? ['failure.task'] : [])] };
    }
    case 'plan':
      return { about: event.plan.id ?? 'plan', topics: [`plan.${event.plan.state}`] };
    case 'decision':
      return { about: event.decision.id, topics: ['decision.made'] };
    case 'sample':
    case 'loads':
    case 'alarm':
      return { about: event.type, topics: [] };
  }
}

/** @param pattern `*`, `migration.*` or `migration.completed` */
export function matches(pattern: string, topic: string): boolean {
  if (pattern === '*') return true;
  return pattern.endsWith('.*') ? topic.startsWith(pattern.slice(0, -1)) : pattern === topic;
}
