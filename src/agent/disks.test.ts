/** Two hosts make the files of one VM on a pool that they share: one of them was given up, and is only slow. */
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openDisks, type Disks } from './disks.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover-disks-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const items = [
  { pool: 'p', file: 'vm_1.raw', source: { kind: 'blank', sizeMiB: 1, format: 'raw' } },
  { pool: 'p', file: 'vm_1b.raw', source: { kind: 'copy', from: '', format: 'raw', growToMiB: 2 } },
] as const;
const [blank, copied] = items;

/** With a qemu-img that writes its host's name, once it is let. */
function host(name: string, isLet = true): Disks & { let(): void; readonly begun: boolean } {
  const program = join(dir, `${name}.sh`);
  const [begun, go] = [join(dir, `${name}.begun`), join(dir, `${name}.go`)];
  if (isLet) writeFileSync(go, '');
  // The file is the last argument but one.
  writeFileSync(
    program,
    `#!/bin/sh\ntouch ${begun}\nwhile [ ! -e ${go} ]; do sleep 0.02; done\nshift $(($# - 2))\necho ${name} >> "$1"\n`,
  );
  chmodSync(program, 0o755);
  const disks = openDisks({ host: name, pools: { p: join(dir, 'pool') }, qemuImg: program, env: {} });
  return {
    ...disks,
    let: () => writeFileSync(go, ''),
    get begun() {
      return existsSync(begun);
    },
  };
}

test.each(['blank', 'copied'] as const)(
  'A host that is late with a %s disk does not replace what a guest runs on.',
  async (which) => {
    const image = join(dir, 'image.raw');
    writeFileSync(image, 'image\n');
    const item = which === 'blank' ? blank : { ...copied, source: { ...copied.source, from: image } };
    const path = join(dir, 'pool', item.file);
    const late = host('h1', false);
    const lately = late.provision([item]);
    await vi.waitFor(() => expect(late.begun).toBe(true));
    await host('h2').provision([item]);
    const made = readFileSync(path, 'utf8');
    expect(made).toBe(which === 'blank' ? 'h2\n' : 'image\nh2\n');
    writeFileSync(path, 'what the guest has written');
    late.let();
    await lately;
    expect(readFileSync(path, 'utf8')).toBe('what the guest has written');
    expect(readdirSync(join(dir, 'pool'))).toEqual([item.file]);
  },
);
