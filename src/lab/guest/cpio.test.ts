import { describe, expect, it } from 'vitest';
import { cpioArchive } from './cpio.ts';

/** A reader of its own, straight from the format's description. */
function entriesOf(archive: Buffer): { name: string; mode: number; device: string; content: string }[] {
  const found = [];
  for (let at = 0; at < archive.length;) {
    const field = (index: number): number =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const [mode, size, nameLength] = [field(1), field(6), field(11)];
    const name = archive.toString('latin1', at + 110, at + 110 + nameLength - 1);
    const contentAt = Math.ceil((at + 110 + nameLength) / 4) * 4;
    const content = archive.toString('latin1', contentAt, contentAt + size);
    found.push({ name, mode, device: `${field(9)}:${field(10)}`, content });
    at = Math.ceil((contentAt + size) / 4) * 4;
  }
  return found;
}

const sample = () =>
  cpioArchive([
    { name: 'dev', kind: 'directory', mode: 0o755 },
    { name: 'dev/console', kind: 'character-device', mode: 0o600, major: 5, minor: 1 },
    { name: 'init', kind: 'file', mode: 0o755, content: Buffer.from('abcde') },
    { name: 'sh', kind: 'link', mode: 0o777, content: Buffer.from('busybox') },
  ]);

describe('cpioArchive', () => {
  it('writes every entry with its type, mode, device and content, and a trailer', () => {
    expect(entriesOf(sample())).toEqual([
      { name: 'dev', mode: 0o040755, device: '0:0', content: '' },
      { name: 'dev/console', mode: 0o020600, device: '5:1', content: '' },
      { name: 'init', mode: 0o100755, device: '0:0', content: 'abcde' },
      { name: 'sh', mode: 0o120777, device: '0:0', content: 'busybox' },
      { name: 'TRAILER!!!', mode: 0, device: '0:0', content: '' },
    ]);
  });

  it('gives the same bytes for the same entries', () => {
    expect(sample().equals(sample())).toBe(true);
  });
});
