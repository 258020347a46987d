import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { endpoints } from './endpoints.ts';
import { openApiDocument } from './openapi.ts';

const version = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version;

test('the OpenAPI document in the reference is the one of this endpoint table (write it anew with vitest -u)', async () => {
  const text = `${JSON.stringify(openApiDocument(version), null, 2)}\n`;
  await expect(text).toMatchFileSnapshot('../../docs/reference/openapi.json');
});

test('every row of the table is an operation of the document, under its own name', () => {
  const paths = openApiDocument(version)['paths'] as Record<string, Record<string, { operationId: string }>>;
  const operations = Object.values(paths).flatMap((methods) => Object.values(methods).map((each) => each.operationId));
  expect(operations.toSorted()).toEqual(Object.keys(endpoints).toSorted());
});

test('every parameter in a path is described', () => {
  const document = openApiDocument(version);
  const paths = document['paths'] as Record<string, Record<string, { parameters?: { name: string; in: string }[] }>>;
  for (const [path, methods] of Object.entries(paths)) {
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
    for (const { parameters = [] } of Object.values(methods)) {
      expect(parameters.filter((each) => each.in === 'path').map(({ name }) => name)).toEqual(inPath);
    }
  }
});
