/**
 * Writes the archive format of initial ramdisks ("newc", described in the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst). Reading it is the kernel's business.
 *
 * Owners are root, times are zero and inode numbers count up, so the same entries give the same bytes.
 */

export type CpioEntry = { readonly name: string; readonly mode: number } & (
  | { readonly kind: 'directory' }
  | { readonly kind: 'file' | 'link'; readonly content: Buffer }
  | { readonly kind: 'character-device'; readonly major: number; readonly minor: number }
);

const typeBits = { directory: 0o040000, file: 0o100000, link: 0o120000, 'character-device': 0o020000 } as const;

/** Entries must name a directory before what lies in it; a link's content is where it points. */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => {
    const content = 'content' in entry ? entry.content : Buffer.alloc(0);
    return record(entry.name, content, {
      inode: index + 1,
      mode: typeBits[entry.kind] | entry.mode,
      links: entry.kind === 'directory' ? 2 : 1,
      major: entry.kind === 'character-device' ? entry.major : 0,
      minor: entry.kind === 'character-device' ? entry.minor : 0,
    });
  });
  const trailer = record('TRAILER!!!', Buffer.alloc(0), { inode: 0, mode: 0, links: 1, major: 0, minor: 0 });
  return Buffer.concat([...parts, ...trailer]);
}

type Attributes = {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly major: number;
  readonly minor: number;
};

function record(name: string, content: Buffer, attributes: Attributes): Buffer[] {
  const { inode, mode, links, major, minor } = attributes;
  const nameBytes = Buffer.from(`${name}\0`);
  // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, major, minor, nameBytes.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return [header, nameBytes, padding(header.length + nameBytes.length), content, padding(content.length)];
}

/** Name and content each end on a multiple of four bytes. */
function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
