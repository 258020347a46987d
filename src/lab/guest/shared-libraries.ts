/**
 * Which shared libraries a program needs, by its own dynamic section (ELF, System V ABI), and where they lie among unpacked
 * packages. For the guest's one program that is not static. Not here: what else is in the image (build.ts).
 */
import { readFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';

const dynamicSegment = 2;
const interpreterSegment = 3;
const loadSegment = 1;
const needed = 1n;
const stringTable = 5n;

export interface Linked {
  /** The program that loads the others, e.g. /lib64/ld-linux-x86-64.so.2; null in a library. */
  readonly interpreter: string | null;
  readonly needs: readonly string[];
}

/** What a 64-bit little-endian ELF file says of itself. @throws RangeError when it is none */
export function linkedWith(file: Buffer): Linked {
  if (file.toString('latin1', 0, 6) !== '\u007fELF\u0002\u0001') throw new RangeError('not a 64-bit ELF file');
  const start = Number(file.readBigUInt64LE(32));
  const [size, count] = [file.readUInt16LE(54), file.readUInt16LE(56)];
  const segments = Array.from({ length: count }, (_, index) => {
    const at = start + index * size;
    const word = (offset: number) => Number(file.readBigUInt64LE(at + offset));
    return { kind: file.readUInt32LE(at), offset: word(8), address: word(16), bytes: word(32) };
  });
  const textAt = (offset: number) => file.toString('latin1', offset, file.indexOf(0, offset));
  const interpreter = segments.find(({ kind }) => kind === interpreterSegment);
  const dynamic = segments.find(({ kind }) => kind === dynamicSegment);
  const names: number[] = [];
  let strings = 0;
  for (let at = dynamic?.offset ?? 0; dynamic && at < dynamic.offset + dynamic.bytes; at += 16) {
    const [tag, value] = [file.readBigUInt64LE(at), Number(file.readBigUInt64LE(at + 8))];
    if (tag === needed) names.push(value);
    if (tag === stringTable) {
      const loaded = segments.find(
        ({ kind, address, bytes }) => kind === loadSegment && value >= address && value < address + bytes,
      );
      strings = loaded ? value - loaded.address + loaded.offset : value;
    }
  }
  return {
    interpreter: interpreter ? textAt(interpreter.offset) : null,
    needs: names.map((offset) => textAt(strings + offset)),
  };
}

export interface Library {
  readonly name: string;
  readonly content: Buffer;
}

/**
 * All that a program needs, itself left out, the interpreter under its file name.
 * @param root where packages are unpacked
 * @throws Error naming the library that is not there
 */
export async function librariesOf(program: Buffer, root: string): Promise<Library[]> {
  const folders = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu', 'lib64', 'usr/lib64'];
  const paths = new Map<string, string>();
  for (const folder of folders) {
    for (const name of await readdir(join(root, folder)).catch(() => [])) {
      if (!paths.has(name)) paths.set(name, join(root, folder, name));
    }
  }
  const libraries = new Map<string, Library>();
  const add = async (name: string): Promise<void> => {
    if (libraries.has(name)) return;
    const path = paths.get(name);
    if (path === undefined) throw new Error(`the shared library ${name} is in no folder of ${root}`);
    const content = await readFile(path);
    libraries.set(name, { name, content });
    for (const each of linkedWith(content).needs) await add(each);
  };
  const { interpreter, needs } = linkedWith(program);
  for (const name of [...(interpreter === null ? [] : [basename(interpreter)]), ...needs]) await add(name);
  return [...libraries.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
