/**
 * Requests for the API, made of its table and of chance: right ones from the schemas of each row, and all kinds of wrong ones.
 * Not here: sending them (fuzz.ts).
 */
import fc from 'fast-check';
import { z } from 'zod';
import { endpoints, type Endpoint, type EndpointName } from '../src/wire/endpoints.ts';

export interface FuzzRequest {
  readonly kind: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  readonly role: 'admin' | 'operator' | 'viewer' | 'nobody';
  /** Where the row is known. */
  readonly name: EndpointName | undefined;
}

type Json = Readonly<Record<string, unknown>>;

/** Names that mean something in the fleet of the fuzz, and some that do not. */
const names = ['h1', 'h2', 'h3', 'web1', 'web2', 'web3', 'alice', 'ops', 'default', 'nothing'];
const anyName = fc.constantFrom(...names);
const odd = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('', ' ', '..', '../..', '%00', '\u0000', 'a'.repeat(500), '__proto__', 'constructor', '💥', "'; --"),
);
const anything = fc.jsonValue({ maxDepth: 3 });

/** Values that a JSON schema of zod allows; names of the fleet where a text is wanted. */
function fitting(schema: Json): fc.Arbitrary<unknown> {
  const { anyOf, oneOf, enum: values, type } = schema;
  if ('const' in schema) return fc.constant(schema['const']);
  if (Array.isArray(values)) return fc.constantFrom(...(values as unknown[]));
  const some = anyOf ?? oneOf;
  if (Array.isArray(some)) return fc.oneof(...some.map((each) => fitting(each as Json)));
  switch (type) {
    case 'null':
      return fc.constant(null);
    case 'boolean':
      return fc.boolean();
    case 'integer':
    case 'number': {
      const min = Number(schema['minimum'] ?? schema['exclusiveMinimum'] ?? -1_000_000);
      const max = Number(schema['maximum'] ?? schema['exclusiveMaximum'] ?? 1_000_000);
      if (type === 'number') return fc.oneof(fc.double({ min, max, noNaN: true }), fc.constantFrom(min, max));
      const low = Math.max(min, -(2 ** 31));
      const high = Math.min(max, 2 ** 31 - 1);
      return fc.oneof(fc.integer({ min: low, max: Math.min(high, low + 100) }), fc.integer({ min: low, max: high }));
    }
    case 'string': {
      const maxLength = Math.min(Number(schema['maxLength'] ?? 60), 60);
      const minLength = Math.min(Number(schema['minLength'] ?? 0), maxLength);
      if (schema['pattern'] !== undefined) return anyName;
      return fc.oneof({ weight: 3, arbitrary: anyName }, { weight: 1, arbitrary: fc.string({ minLength, maxLength }) });
    }
    case 'array': {
      const items = fitting((schema['items'] ?? {}) as Json);
      return fc.array(items, { minLength: Number(schema['minItems'] ?? 0), maxLength: 4 });
    }
    case 'object': {
      const properties = Object.entries((schema['properties'] ?? {}) as Record<string, Json>);
      if (properties.length === 0) return fc.dictionary(anyName, fc.string({ maxLength: 10 }), { maxKeys: 3 });
      const required = (schema['required'] ?? []) as string[];
      const model = Object.fromEntries(properties.map(([key, each]) => [key, fitting(each)]));
      return fc.record(model, { requiredKeys: required });
    }
    default:
      return anything;
  }
}

/** Something near it that is wrong, mostly. */
function broken(right: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const changed = fc.tuple(right, fc.nat(), fc.oneof(anything, odd), fc.boolean()).map(([value, at, other, extra]) => {
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return other;
    const keys = Object.keys(value);
    const key = extra || keys.length === 0 ? 'surplus' : (keys[at % keys.length] ?? 'surplus');
    return { ...value, [key]: other };
  });
  return fc.oneof(
    anything,
    changed,
    right.map((value) => [value]),
  );
}

const schemaOf = (schema: z.ZodType): Json => z.toJSONSchema(schema, { io: 'input', target: 'draft-2020-12' });

const roles = fc.constantFrom<FuzzRequest['role']>('admin', 'admin', 'admin', 'admin', 'operator', 'viewer', 'nobody');
const oddHeader = fc.constantFrom(
  {},
  {},
  {},
  { 'idempotency-key': 'k1' },
  { 'idempotency-key': 'not a key' },
  { 'if-match': '"1"' },
  { 'if-match': '*' },
  { 'last-event-id': 'x' },
  { 'last-event-id': '1-0' },
  { 'drover-reason': 'a%20reason' },
  { 'drover-reason': '%E0%A4%A' },
  { cookie: 'drover-session=x; other=y' },
  { accept: 'text/html' },
  { origin: 'http://evil.example' },
);

const named: Readonly<Record<string, readonly string[]>> = {
  host: ['h1', 'h2', 'h3', 'h3', 'nothing'],
  vm: ['web1', 'web1', 'web2', 'web3', 'nothing'],
  user: ['alice', 'ops', 'nothing'],
  token: ['alice', 'ops', 'default', 'nothing'],
};

/** A name, or for what has only ids `~kind~`: whoever sends it puts one in that is there. */
function fittingRef(kind: string): fc.Arbitrary<string> {
  return fc.constantFrom(...(named[kind] ?? [`~${kind}~`, `~${kind}~`, 'nothing']));
}

function ofRow(name: EndpointName, endpoint: Endpoint, isRight: boolean): fc.Arbitrary<FuzzRequest> {
  const make = (schema: z.ZodType | undefined): fc.Arbitrary<unknown> => {
    if (schema === undefined) return isRight ? fc.constant(undefined) : fc.option(anything, { nil: undefined });
    const right = fitting(schemaOf(schema));
    return isRight ? right : fc.oneof({ weight: 2, arbitrary: broken(right) }, { weight: 1, arbitrary: right });
  };
  const kinds = [...endpoint.path.matchAll(/:(\w+)/g)].map(([, kind]) => kind ?? '');
  const refs = fc.tuple(...kinds.map((kind) => (isRight ? fittingRef(kind) : fc.oneof(fittingRef(kind), odd))));
  const query = endpoint.query === undefined ? fc.constant({}) : make(endpoint.query);
  return fc
    .record({
      refs,
      query,
      body: endpoint.method === 'GET' ? fc.constant(undefined) : make(endpoint.body),
      headers: oddHeader,
      role: roles,
    })
    .map(({ refs: given, query: asked, body, headers, role }) => {
      let at = 0;
      const path = endpoint.path.replace(/:\w+/g, () => encodeURIComponent(given[at++] ?? ''));
      const search = new URLSearchParams(
        Object.entries(asked ?? {}).flatMap(([key, value]): [string, string][] =>
          value === undefined ? [] : [[key, typeof value === 'string' ? value : JSON.stringify(value)]],
        ),
      ).toString();
      return {
        kind: isRight ? 'right' : 'wrong',
        method: endpoint.method,
        path: `/api/v1${path}${search === '' ? '' : `?${search}`}`,
        headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        role,
        name,
      };
    });
}

const rows = Object.entries(endpoints) as [EndpointName, Endpoint][];
const anyRow = (isRight: boolean): fc.Arbitrary<FuzzRequest> =>
  fc.oneof(...rows.map(([name, endpoint]) => ofRow(name, endpoint, isRight)));

/** Bodies that are no JSON, or said to be something else, or too large. */
const spoilt = anyRow(true).chain((request) =>
  fc
    .record({
      body: fc.oneof(odd, fc.constantFrom('{', '{"a":', '[', 'null', 'x'.repeat(300_000), '{"a":1}}', '\uFEFF{}')),
      type: fc.constantFrom('application/json', 'text/plain', 'application/x-www-form-urlencoded', '', 'nonsense'),
    })
    .map(({ body, type }) => ({
      ...request,
      kind: 'spoilt',
      body,
      headers: { ...request.headers, 'content-type': type },
    })),
);

/** Paths and methods that are not in the table. */
const lost = fc
  .record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'),
    path: fc.oneof(
      fc.webPath().map((path) => `/api/v1${path}`),
      fc.webPath().map((path) => (path.startsWith('/') ? path : `/${path}`)),
      fc.constantFrom(...rows.map(([, { path }]) => `/api/v1${path.replace(/:\w+/g, 'h1')}`)),
      fc.constantFrom('/', '/api/v1', '/api/v1/', '/api/v1/vms/%', '/api/v1/vms/%ff', '/api/v1//vms', '/api/v2/vms'),
    ),
    role: roles,
  })
  .map((each): FuzzRequest => ({ ...each, kind: 'lost', headers: {}, body: undefined, name: undefined }));

export const anyRequest: fc.Arbitrary<FuzzRequest> = fc.oneof(
  { weight: 5, arbitrary: anyRow(true) },
  { weight: 3, arbitrary: anyRow(false) },
  { weight: 1, arbitrary: spoilt },
  { weight: 1, arbitrary: lost },
);
