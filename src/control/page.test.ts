import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPage } from './page.ts';

describe('the page', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'drover-page-'));
    mkdirSync(join(dir, 'assets'));
    writeFileSync(join(dir, 'index.html'), '<title>Drover</title>');
    writeFileSync(join(dir, 'assets', 'index-abc.js'), 'let a;');
    writeFileSync(join(dir, '.stamp'), 'secret');
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  it('serves its files, and itself for every address of its own', () => {
    const page = openPage(dir);
    expect(page.answer('/assets/index-abc.js', false)).toMatchObject({
      status: 200,
      headers: {
        'content-type': 'text/javascript; charset=utf-8',
        'cache-control': expect.stringContaining('immutable'),
      },
    });
    for (const path of ['/', '/vms/web1', '/.stamp', '/../etc/passwd']) {
      expect(page.answer(path, false).body.toString()).toBe('<title>Drover</title>');
    }
    expect(page.answer('/', false).headers['content-security-policy']).toContain("default-src 'self'");
  });

  it('is sent compressed to who takes it', () => {
    const { body, headers } = openPage(dir).answer('/', true);
    expect(headers['content-encoding']).toBe('gzip');
    expect(gunzipSync(body).toString()).toBe('<title>Drover</title>');
  });

  it('says of a file of an older build that it is gone, not the page in its place', () => {
    expect(openPage(dir).answer('/assets/index-old.js', false).status).toBe(404);
  });

  it('says how to build it where it is not built', () => {
    const answer = openPage(join(dir, 'nowhere')).answer('/', false);
    expect(answer.status).toBe(503);
    expect(answer.body.toString()).toContain('npm run build');
  });
});
