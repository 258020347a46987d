// Writes src/hypervisor/qemu/types.gen.ts: the QMP commands and events we use, typed from QEMU's own schema.
//
//   node tools/qmp-types.ts [--check] QEMU_BINARY [OLDER_QEMU_BINARY ...]
//
// Several binaries give one table that is honest for all of them: a member is required only where every QEMU requires
// it, an enum lists the values of all, and what some version lacks says so in a comment. `--check` writes nothing and
// ends with 1 when the file is stale. QEMU's shared libraries and modules are found as by the environment.
//
// The schema hides type names (they are numbers, different in every build), so types are named by where they are first
// met: QueryMigrateReplyRam. To use another command, add it to the lists below and run this again.
// Format of the schema: QEMU's qapi/introspect.json and docs/devel/qapi-code-gen.

import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const commands = [
  'add-fd',
  'announce-self',
  'balloon',
  'block-export-add',
  'block-export-del',
  'block-job-cancel',
  'blockdev-add',
  'blockdev-del',
  'blockdev-mirror',
  'calc-dirty-rate',
  'closefd',
  'cont',
  'device_add',
  'device_del',
  'getfd',
  'human-monitor-command',
  'job-cancel',
  'job-complete',
  'job-dismiss',
  'migrate',
  'migrate-continue',
  'migrate-incoming',
  'migrate-pause',
  'migrate-recover',
  'migrate-set-capabilities',
  'migrate-set-parameters',
  'migrate-start-postcopy',
  'migrate_cancel',
  'nbd-server-start',
  'nbd-server-stop',
  'netdev_add',
  'netdev_del',
  'object-add',
  'object-del',
  'qmp_capabilities',
  'query-balloon',
  'query-block',
  'query-block-exports',
  'query-block-jobs',
  'query-blockstats',
  'query-chardev',
  'query-commands',
  'query-cpu-definitions',
  'query-cpus-fast',
  'query-dirty-rate',
  'query-jobs',
  'query-kvm',
  'query-machines',
  'query-migrate',
  'query-migrate-capabilities',
  'query-migrate-parameters',
  'query-name',
  'query-named-block-nodes',
  'query-pci',
  'query-status',
  'query-uuid',
  'query-version',
  'query-yank',
  'quit',
  'set_link',
  'stop',
  'system_powerdown',
  'system_reset',
  'yank',
];

const events = [
  'BALLOON_CHANGE',
  'BLOCK_EXPORT_DELETED',
  'BLOCK_IO_ERROR',
  'BLOCK_JOB_CANCELLED',
  'BLOCK_JOB_COMPLETED',
  'BLOCK_JOB_ERROR',
  'BLOCK_JOB_PENDING',
  'BLOCK_JOB_READY',
  'DEVICE_DELETED',
  'DEVICE_UNPLUG_GUEST_ERROR',
  'GUEST_CRASHLOADED',
  'GUEST_PANICKED',
  'JOB_STATUS_CHANGE',
  'MEMORY_FAILURE',
  'MIGRATION',
  'MIGRATION_PASS',
  'NIC_RX_FILTER_CHANGED',
  'POWERDOWN',
  'RESET',
  'RESUME',
  'SHUTDOWN',
  'STOP',
  'UNPLUG_PRIMARY',
  'WATCHDOG',
];

/** Arguments that QEMU checks by itself and leaves out of its schema (properties of the device). */
const openArguments = new Set(['device_add']);

/** Big unions, cut down to what we build: by the tag's name, the cases that stay. */
const keptCases: Record<string, string[]> = {
  'blockdev-add driver': ['copy-on-read', 'file', 'host_device', 'nbd', 'null-co', 'qcow2', 'raw', 'throttle'],
  'netdev_add type': ['dgram', 'hubport', 'socket', 'stream', 'tap', 'user'],
  'object-add qom-type': [
    'authz-list',
    'authz-simple',
    'iothread',
    'memory-backend-file',
    'memory-backend-memfd',
    'memory-backend-ram',
    'rng-random',
    'secret',
    'throttle-group',
    'tls-creds-psk',
    'tls-creds-x509',
  ],
};

interface Member {
  name: string;
  type: string;
  default?: unknown; // present (even as null) means: may be left out
}

interface Entity {
  name: string;
  'meta-type': 'command' | 'event' | 'object' | 'array' | 'builtin' | 'enum' | 'alternate';
  'arg-type'?: string;
  'ret-type'?: string;
  'allow-oob'?: boolean;
  'json-type'?: string;
  'element-type'?: string;
  values?: string[];
  members?: Member[] | { type: string }[] | { name: string }[];
  tag?: string;
  variants?: { case: string; type: string }[];
}

interface Schema {
  version: string;
  entities: Map<string, Entity>;
}

/** One type as each version sees it; undefined where the version does not have it. */
type Versions = (Entity | undefined)[];

/** Starts QEMU without a machine and asks for its schema; fails after 20 s. */
async function readSchema(binary: string): Promise<Schema> {
  const qemu = spawn(binary, ['-machine', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    signal: AbortSignal.timeout(20_000),
  });
  const failed = new Promise<never>((_, reject) => {
    qemu.once('error', (cause) =>
      reject(new Error(`cannot ask ${binary} for its schema: ${cause.message}`, { cause })),
    );
  });
  const asked = (async () => {
    let version = '';
    qemu.stdin.write('{"execute":"qmp_capabilities"}\n{"execute":"query-qmp-schema","id":"schema"}\n');
    for await (const line of createInterface({ input: qemu.stdout })) {
      const message = JSON.parse(line);
      if (message.QMP) {
        const { major, minor, micro } = message.QMP.version.qemu;
        version = `${major}.${minor}.${micro}`;
      }
      if (message.error) throw new Error(`${binary} refused: ${message.error.desc}`);
      if (message.id === 'schema') {
        qemu.stdin.end('{"execute":"quit"}\n');
        const entities: Entity[] = message.return;
        return { version, entities: new Map(entities.map((entity) => [entity.name, entity])) };
      }
    }
    throw new Error(`${binary} ended without giving its schema`);
  })();
  try {
    return await Promise.race([asked, failed]);
  } finally {
    qemu.kill('SIGKILL');
  }
}

function pascal(text: string): string {
  return text
    .split(/[^A-Za-z0-9]+/)
    .filter((part) => part !== '')
    .map((part) => part[0]!.toUpperCase() + part.slice(1))
    .join('');
}

function key(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : `'${name}'`;
}

/** Renders the whole file; pure. */
function render(schemas: Schema[]): string {
  const declarations: string[] = [];
  const named = new Map<string, string>();
  const taken = new Set<string>();

  function lookUp(types: (string | undefined)[]): Versions {
    return types.map((type, index) => (type === undefined ? undefined : schemas[index]!.entities.get(type)));
  }

  function absence(present: boolean[]): string {
    const without = schemas.filter((_, index) => !present[index]).map((schema) => schema.version);
    return without.length === 0 ? '' : `/** absent in ${without.join(', ')} */ `;
  }

  function typeOf(versions: Versions, where: string, owner: string): string {
    const known = versions.filter((entity) => entity !== undefined);
    const metas = new Set(known.map((entity) => entity['meta-type']));
    if (metas.size > 1) {
      // A string that became an enum, or the like: whatever any version takes.
      const each = versions.map((one, index) =>
        one === undefined
          ? undefined
          : typeOf(
              versions.map((_, other) => (other === index ? one : undefined)),
              where,
              owner,
            ),
      );
      return [...new Set(each.filter((text) => text !== undefined))].join(' | ');
    }
    const [first] = known;
    if (first === undefined) throw new Error(`${where}: no version knows this type`);
    switch (first['meta-type']) {
      case 'builtin':
        return builtin(first);
      case 'array': {
        const element = typeOf(lookUp(versions.map((entity) => entity?.['element-type'])), where, owner);
        return /[|&]/.test(element) ? `(${element})[]` : `${element}[]`;
      }
      default:
        break;
    }
    const identity = versions.map((entity) => entity?.name ?? '').join('|');
    const existing = named.get(identity);
    if (existing !== undefined) return existing;
    if (first['meta-type'] === 'object' && known.every((entity) => isEmpty(entity))) return 'Empty';
    let name = where;
    for (let n = 2; taken.has(name); n += 1) name = `${where}${n}`;
    taken.add(name);
    named.set(identity, name); // before the body: block nodes contain block nodes
    const at = declarations.push('') - 1;
    declarations[at] = `type ${name} = ${body(versions, name, owner)};`;
    return name;
  }

  function builtin(entity: Entity): string {
    switch (entity['json-type']) {
      case 'string':
        return 'string';
      case 'int':
      case 'number':
        return 'number';
      case 'boolean':
        return 'boolean';
      case 'null':
        return 'null';
      default:
        return 'unknown';
    }
  }

  function isEmpty(entity: Entity): boolean {
    return (entity.members?.length ?? 0) === 0 && (entity.variants?.length ?? 0) === 0;
  }

  function body(versions: Versions, where: string, owner: string): string {
    const known = versions.filter((entity) => entity !== undefined);
    switch (known[0]!['meta-type']) {
      case 'enum': {
        const values = [...new Set(known.flatMap((entity) => entity.values ?? []))];
        return values
          .map((value) => {
            const note = absence(
              versions.map((entity) => entity === undefined || (entity.values ?? []).includes(value)),
            );
            return `\n  | ${note}'${value}'`;
          })
          .join('');
      }
      case 'alternate': {
        const width = Math.max(...known.map((entity) => entity.members?.length ?? 0));
        const choices = Array.from({ length: width }, (_, index) =>
          typeOf(
            lookUp(versions.map((entity) => (entity?.members as { type: string }[])?.[index]?.type)),
            where,
            owner,
          ),
        );
        return [...new Set(choices)].join(' | ');
      }
      case 'object':
        return objectBody(versions, where, owner);
      default:
        throw new Error(`${where}: ${known[0]!['meta-type']} is no type`);
    }
  }

  function objectBody(versions: Versions, where: string, owner: string): string {
    const known = versions.filter((entity) => entity !== undefined);
    const tag = known.find((entity) => entity.tag !== undefined)?.tag;
    const membersOf = (entity: Entity | undefined) => (entity?.members ?? []) as Member[];
    const names = [...new Set(known.flatMap((entity) => membersOf(entity).map((member) => member.name)))];
    const lines = names
      .filter((name) => name !== tag)
      .map((name) => {
        const each = versions.map((entity) => membersOf(entity).find((member) => member.name === name));
        const optional = versions.some(
          (entity, index) => entity !== undefined && (each[index] === undefined || 'default' in each[index]),
        );
        const note = absence(versions.map((entity, index) => entity === undefined || each[index] !== undefined));
        const type = typeOf(lookUp(each.map((member) => member?.type)), where + pascal(name), owner);
        return `  ${note}${key(name)}${optional ? '?' : ''}: ${type};`;
      });
    const common = lines.length === 0 ? '' : `{\n${lines.join('\n')}\n}`;
    if (tag === undefined) return common || 'Empty';
    const kept = keptCases[`${owner} ${tag}`];
    const tagTypes = lookUp(versions.map((entity) => membersOf(entity).find((member) => member.name === tag)?.type));
    const cases = [...new Set(tagTypes.flatMap((entity) => entity?.values ?? []))].filter(
      (value) => kept === undefined || kept.includes(value),
    );
    const variants = cases.map((value) => {
      const types = versions.map((entity) => entity?.variants?.find((variant) => variant.case === value)?.type);
      const own = types.every((type) => type === undefined)
        ? 'Empty'
        : typeOf(lookUp(types), where + pascal(value), owner);
      return `\n  | ({ ${key(tag)}: '${value}' }${own === 'Empty' ? '' : ` & ${own}`})`;
    });
    return common === '' ? variants.join('') : `${common} & (${variants.join('')}\n)`;
  }

  function top(name: string, meta: 'command' | 'event'): Versions {
    const versions = schemas.map((schema) => schema.entities.get(name));
    if (!versions.some((entity) => entity?.['meta-type'] === meta)) {
      throw new Error(`no QEMU given here has the ${meta} ${name}`);
    }
    return versions;
  }

  const commandRows = commands.map((name) => {
    const versions = top(name, 'command');
    const args = typeOf(lookUp(versions.map((entity) => entity?.['arg-type'])), `${pascal(name)}Args`, name);
    const reply = typeOf(lookUp(versions.map((entity) => entity?.['ret-type'])), `${pascal(name)}Reply`, name);
    const open = openArguments.has(name) ? ' & Record<string, unknown>' : '';
    return `  ${absence(versions.map((entity) => entity !== undefined))}${key(name)}: { args: ${args}${open}; reply: ${reply} };`;
  });
  const eventRows = events.map((name) => {
    const versions = top(name, 'event');
    const data = typeOf(
      lookUp(versions.map((entity) => entity?.['arg-type'])),
      `${pascal(name.toLowerCase())}Data`,
      name,
    );
    return `  ${absence(versions.map((entity) => entity !== undefined))}${key(name)}: ${data};`;
  });
  const oob = commands.filter((name) => top(name, 'command').some((entity) => entity?.['allow-oob'] === true));

  return [
    `// Written by tools/qmp-types.ts from the schemas of QEMU ${schemas.map((schema) => schema.version).join(' and ')}; do not edit.`,
    '// Integers are JavaScript numbers: exact up to 2^53, more than any size or time that QEMU counts for us.',
    '',
    'type Empty = Record<never, never>;',
    '',
    '/** What each command takes and answers. */',
    `export interface Commands {\n${commandRows.join('\n')}\n}`,
    '',
    '/** What each event carries. */',
    `export interface Events {\n${eventRows.join('\n')}\n}`,
    '',
    '/** Commands that QEMU also carries out of band, while its main loop hangs. */',
    `export type OobCommand = ${oob.map((name) => `'${name}'`).join(' | ')};`,
    '',
    '/** The names in Events, for code that has to tell them from others at run time. */',
    `export const eventNames = [${events.map((name) => `'${name}'`).join(', ')}] as const satisfies (keyof Events)[];`,
    '',
    ...declarations.flatMap((declaration) => [declaration, '']),
  ].join('\n');
}

const words = process.argv.slice(2);
const binaries = words.filter((word) => !word.startsWith('--'));
if (binaries.length === 0) {
  process.stderr.write('usage: node tools/qmp-types.ts [--check] QEMU_BINARY [OLDER_QEMU_BINARY ...]\n');
  process.exit(2);
}
const schemas: Schema[] = [];
for (const binary of binaries) schemas.push(await readSchema(binary));
const target = new URL('../src/hypervisor/qemu/types.gen.ts', import.meta.url);
const text = render(schemas);
if (!words.includes('--check')) {
  writeFileSync(target, text);
} else if (readFileSync(target, 'utf8') !== text) {
  process.stderr.write('src/hypervisor/qemu/types.gen.ts is stale: run tools/qmp-types.ts with the same binaries\n');
  process.exit(1);
}
