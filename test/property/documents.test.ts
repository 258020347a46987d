/** The documents against the tree: a path or a failure code named there exists here, and the other way round. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultPolicy } from '../../src/migration/techniques.ts';
import { failureCodes, userErrorCodes } from '../../src/model/failure.ts';
import { phaseNames, techniques } from '../../src/model/migration.ts';

const repository = join(import.meta.dirname, '..', '..');
const read = (path: string): string => readFileSync(join(repository, path), 'utf8');

/** The documents that people read; what changes/ says of old versions may name what is gone. */
const documents = [
  'README.md',
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(repository, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
];

/** Paths of the repository written as `code`. */
function pathsIn(text: string): string[] {
  const found = text.matchAll(/`((?:src|test|tools|docs|bench|packaging|bin|changes)\/[\w./-]*)`/g);
  return [...found].map(([, path]) => path ?? '').filter((path) => !path.endsWith('/x.test.ts'));
}

/** Codes that have a section of their own. */
function headings(text: string): string[] {
  return [...text.matchAll(/^### `([^`]+)`$/gm)].map(([, code]) => code ?? '');
}

function definesOrCalls(source: string, name: string): boolean {
  return new RegExp(`\\b${name}\\(`).test(source);
}

describe('the documents', () => {
  it.each(documents)('%s names only paths that exist', (document) => {
    expect(pathsIn(read(document)).filter((path) => !existsSync(join(repository, path)))).toEqual([]);
  });

  it.each(documents)('%s links only to files that exist', (document) => {
    const links = [...read(document).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, link]) => link ?? '');
    expect(links.filter((link) => !existsSync(join(repository, dirname(document), link)))).toEqual([]);
  });

  it('ARCHITECTURE.md shows a tree whose files are all there, and no source file is missing from its folders', () => {
    const tree = read('ARCHITECTURE.md').split('## The tree')[1]?.split('\n## ')[0] ?? '';
    const words = new Set(tree.match(/[\w.-]+/g));
    for (const folder of ['model', 'migration', 'store', 'control', 'agent', 'hypervisor/qemu', 'wire']) {
      const files = readdirSync(join(repository, 'src', folder)).filter(
        (file) => file.endsWith('.ts') && !file.endsWith('.test.ts') && !file.startsWith('fake-'),
      );
      expect(
        files.filter((file) => !words.has(file)),
        folder,
      ).toEqual([]);
    }
    const everyFile = new Set(
      readdirSync(join(repository, 'src'), { recursive: true, encoding: 'utf8' }).map((file) => file.split('/').at(-1)),
    );
    const named = [...words].filter((word) => word.endsWith('.ts'));
    expect(named.filter((name) => !everyFile.has(name))).toEqual([]);
  });

  it('each function ARCHITECTURE.md names stands in a file that is named beside it', () => {
    const blocks = read('ARCHITECTURE.md').split(/\n\n|\n(?=\d+\. |\|)/);
    const claims = blocks.flatMap((block) => {
      const sources = pathsIn(block).filter((path) => path.endsWith('.ts'));
      return [...block.matchAll(/`#?(\w+)\(\)`/g)].map(([, name]) => ({ name: name ?? '', sources }));
    });
    expect(claims.length).toBeGreaterThan(30);
    const homeless = claims.filter(({ name, sources }) => !sources.some((path) => definesOrCalls(read(path), name)));
    expect(homeless).toEqual([]);
  });

  it('failures.md explains every way a migration can fail, and no other', () => {
    const explained = headings(read('docs/reference/failures.md'));
    expect(explained.toSorted()).toEqual([...failureCodes].toSorted());
  });

  it('failures.md lists every code of a refusal', () => {
    const text = read('docs/reference/failures.md');
    expect(Object.keys(userErrorCodes).filter((code) => !text.includes(`| \`${code}\``))).toEqual([]);
  });

  it('the guide to migration names every technique, phase and policy option', () => {
    const text = read('docs/guide/migration.md');
    const wanted = [...techniques, ...phaseNames, ...Object.keys(defaultPolicy)];
    expect(wanted.filter((word) => !text.includes(`\`${word}\``))).toEqual([]);
  });
});
