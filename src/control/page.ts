/**
 * The dashboard's files, as Vite has built them: read once, served from memory. Every path that is no file is answered with the page
 * itself, which knows its own addresses. Not here: HTTP (server.ts).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

export interface PageAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export interface Page {
  /** @param path with a leading slash, without the query */
  answer(path: string, acceptsGzip: boolean): PageAnswer;
}

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.webp': 'image/webp',
  '.woff2': 'font/woff2',
};

/** Nothing from elsewhere, nothing inline but styles that the page's own script sets, and no other page around this one. */
const guarded = {
  'content-security-policy':
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

/** @param dir where `npm run build` has put it; when it has not, each answer says so */
export function openPage(dir: string): Page {
  const files = new Map<string, { plain: Buffer; zipped: Buffer | undefined; headers: Record<string, string> }>();
  if (existsSync(join(dir, 'index.html'))) {
    for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || entry.name.startsWith('.')) continue;
      const full = join(entry.parentPath, entry.name);
      const type = types[extname(entry.name)];
      if (type === undefined) continue;
      const plain = readFileSync(full);
      const hashed = entry.parentPath.endsWith('assets');
      files.set(full.slice(dir.length).replaceAll('\\', '/'), {
        plain,
        zipped: /text|svg/.test(type) ? gzipSync(plain) : undefined,
        headers: {
          ...guarded,
          'content-type': type,
          'cache-control': hashed ? 'public, max-age=31536000, immutable' : 'no-cache',
          vary: 'accept-encoding',
        },
      });
    }
  }
  return {
    answer(path, acceptsGzip) {
      const missing = files.get(path) === undefined && path.startsWith('/assets/');
      const file = files.get(path) ?? (missing ? undefined : files.get('/index.html'));
      if (!file) return missing && files.size > 0 ? notFound : notBuilt;
      const { plain, zipped, headers } = file;
      return acceptsGzip && zipped
        ? { status: 200, headers: { ...headers, 'content-encoding': 'gzip' }, body: zipped }
        : { status: 200, headers, body: plain };
    },
  };
}

const notFound: PageAnswer = {
  status: 404,
  headers: { ...guarded, 'content-type': 'text/plain; charset=utf-8' },
  body: Buffer.from('There is no such file. The page is of an older version: load it again.\n'),
};

const notBuilt: PageAnswer = {
  status: 503,
  headers: { ...guarded, 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' },
  body: Buffer.from(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Drover</title>
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem">
<h1>The dashboard is not built</h1>
<p>The server runs, and its API answers under <code>/api/v1</code>. To have the page as well, run this in the clone and start the
server again:</p><pre>npm run build</pre></body></html>
`),
};
