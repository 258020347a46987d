// npm run check, part `tidy`: rules about files and text that no linter knows: names, lengths, leftovers, and words that
// must not be in what we publish. Each rule says what to do instead. A line may be excused by writing
// "tidy: <reason>" in a comment on it.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const repo = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

const maxColumns = 160;
const maxLines = 600;
const maxBytes = 512 * 1024;
const textFile = /(\.(ts|tsx|mjs|js|json|md|sh|c|h|yml|yaml|toml|css|html|txt|service)|\/(run|drover))$/;
const codeFile = /\.(ts|tsx|mjs|js|c|h|sh)$/;
const generated = /(\.gen\.(ts|json)$|^package-lock\.json$|^docs\/reference\/|^test\/.*\/(recorded|fixtures)\/)/;
/** these files hold the rules, so they must be able to name what they forbid */
const ownRules = new Set(['tools/tidy.mjs', '.oxlintrc.json', 'CONTRIBUTING.md']);

const srcFolders = new Set(
  'model migration planner wire store hypervisor control agent cli web sim lab dev runtime'.split(' '),
);

/** [where, what, why and what instead] */
const lineRules = [
  [codeFile, /\b(TODO|FIXME|XXX|HACK)\b/, 'no notes to self: do it, or write an issue'],
  [/\.tsx?$/, /\bas any\b|<any>|: any\b/, 'no `any`: write the type, or `unknown` and a check'],
  [
    /\.tsx?$/,
    /@ts-(ignore|nocheck)|@ts-expect-error\s*$/,
    'no silent type errors: mend it, or @ts-expect-error with the reason',
  ],
  [/\.(tsx?|mjs)$/, /(oxlint|eslint)-disable(?!.*--\s*\S)/, 'a disabled rule needs its reason: `-- why`'],
  [/\.test\.ts$/, /\b(it|test|describe)\.(only|skip|todo)\b/, 'no test left out by accident: remove it or let it run'],
  [/\.tsx?$/, /\bdebugger\b/, 'no debugger statements'],
  [/./, /\/(work|root|home\/[a-z]+)\/[\w.-]/, "no machine's paths: make it relative to the repository or an argument"],
  [/./, /[ \t]+$/, 'no blanks at the end of a line'],
  [/\.tsx?$/, /\bfrom '\.[^']*(?<!\.(ts|tsx|json|css))'/, "imports name the file: './x.ts'"],
];

const bannedName = /(^|[-/.])(managers?|helpers?|utils?|service|impl|info)(?=[-.]|$)/;

const problems = [];

function problem(file, line, text) {
  problems.push(`${file}${line > 0 ? `:${line}` : ''}: ${text}`);
}

/** Tracked and new files, without what .gitignore leaves out; also in a clone that belongs to somebody else. */
function files() {
  const args = ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const out = execFileSync('git', args, { cwd: repo, maxBuffer: 64 << 20 });
  return out
    .toString()
    .split('\0')
    .filter((file) => file !== '' && existsSync(path.join(repo, file)));
}

function checkName(file) {
  if (!/^(src|test|bench|tools)\//.test(file)) return;
  const base = path.basename(file);
  if (/^[a-z].*\.(ts|tsx|mjs)$/.test(base) && !/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9-]+)*$/.test(base)) {
    problem(file, 0, 'file names are kebab-case');
  }
  if (/^[A-Z].*\.tsx?$/.test(base)) problem(file, 0, 'file names are kebab-case');
  if (bannedName.test(file))
    problem(file, 0, 'name the file after what it exports, not manager, helper, util, service, impl, info');
  if (/(^|\/)index\.tsx?$/.test(file)) problem(file, 0, 'no barrels: import from the file that defines it');
  const [, folder, rest] = /^src\/([^/]+)(\/.*)?$/.exec(file) ?? [];
  if (rest !== undefined && !srcFolders.has(folder)) {
    problem(
      file,
      0,
      `src/${folder} has no row in the import rule: add it to .oxlintrc.json, ARCHITECTURE.md and tools/tidy.mjs`,
    );
  }
  if (rest === undefined && folder !== undefined && folder !== 'main.ts') {
    problem(file, 0, 'src/ holds main.ts and folders only');
  }
}

function checkText(file) {
  const full = path.join(repo, file);
  const bytes = statSync(full).size;
  if (bytes > maxBytes && !generated.test(file))
    problem(file, 0, `${bytes} bytes: large files do not belong in the repository`);
  if (!textFile.test(`/${file}`) || generated.test(file)) return;
  const text = readFileSync(full, 'utf8');
  if (text.length > 0 && !text.endsWith('\n')) problem(file, 0, 'ends without a newline');
  const lines = text.split('\n');
  if (codeFile.test(file) && lines.length - 1 > maxLines) {
    problem(file, 0, `${lines.length - 1} lines: more than ${maxLines}; split it by what it is about`);
  }
  lines.forEach((line, index) => {
    if (/\btidy: \S/.test(line)) return;
    if (line.length > maxColumns && !ownRules.has(file) && !/https?:\/\/\S{80,}/.test(line)) {
      problem(file, index + 1, `${line.length} columns: more than ${maxColumns}`);
    }
    if (ownRules.has(file)) return;
    for (const [where, what, instead] of lineRules) {
      if (where.test(file) && what.test(line)) problem(file, index + 1, instead);
    }
  });
}

/** Source files say at their top what lives there. */
function checkHeader(file) {
  if (
    !/^(src|test|bench|tools)\/.*\.(ts|tsx|mjs)$/.test(file) ||
    generated.test(file) ||
    /\.test\.(ts|mjs)$/.test(file)
  )
    return;
  const start = readFileSync(path.join(repo, file), 'utf8')
    .slice(0, 200)
    .replace(/^#!.*\n/, '')
    .trimStart();
  if (!start.startsWith('//') && !start.startsWith('/*'))
    problem(file, 1, 'no header: say what lives here and what does not');
}

const all = files();
for (const file of all) {
  checkName(file);
  checkText(file);
  checkHeader(file);
}
for (const line of problems) console.log(line);
console.log(`tidy: ${all.length} files, ${problems.length} problem${problems.length === 1 ? '' : 's'}`);
process.exitCode = problems.length === 0 ? 0 : 1;
