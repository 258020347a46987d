/**
 * The OpenAPI 3.1 document of the public API, written from the endpoint table. Served by the server and kept in
 * docs/reference/openapi.json, where a test holds it fresh. Its examples are what a server really answered (examples.ts).
 */
import { z } from 'zod';
import { UserError, type UserErrorCode } from '../model/failure.ts';
import { decisionView, planView } from './balance.ts';
import { apiPrefix } from './client.ts';
import { drainView } from './drains.ts';
import { endpoints } from './endpoints.ts';
import type { Endpoint, EndpointName } from './endpoints.ts';
import { energyView, sleepView } from './energy.ts';
import { problem, problemOf, statusOfCode } from './errors.ts';
import { eventView } from './events.ts';
import { exampleReplies, exampleRequests } from './examples.ts';
import { fleetSnapshot } from './fleet.ts';
import { hostView } from './hosts.ts';
import { migrationSample, migrationView } from './migrations.ts';
import { errorsOf } from './operation-errors.ts';
import { auditView, meView, tokenView, userView } from './people.ts';
import { powerView } from './power.ts';
import { recoveryView } from './recovery.ts';
import { taskView } from './tasks.ts';
import { vmView } from './vms.ts';
import { deliveryView, webhookView } from './webhooks.ts';

type Json = Readonly<Record<string, unknown>>;

/** Types with a name of their own in the document, and so in clients that are made from it. */
const named: Readonly<Record<string, z.ZodType>> = {
  Host: hostView,
  Vm: vmView,
  Migration: migrationView,
  MigrationSample: migrationSample,
  Recovery: recoveryView,
  Drain: drainView,
  Task: taskView,
  Plan: planView,
  Decision: decisionView,
  Energy: energyView,
  Sleep: sleepView,
  Power: powerView,
  FleetSnapshot: fleetSnapshot,
  Event: eventView,
  Me: meView,
  User: userView,
  Token: tokenView,
  AuditEntry: auditView,
  Webhook: webhookView,
  Delivery: deliveryView,
  Problem: problem,
};
const registry = z.registry<{ id: string }>();
for (const [id, schema] of Object.entries(named)) registry.add(schema, { id });

const statusWords: Readonly<Record<number, string>> = {
  400: 'The request is malformed, or has a field that is not known',
  401: 'No valid bearer token or session',
  403: 'The role is not enough',
  404: 'No such object',
  409: 'The object is busy, exists already, or is in the wrong state',
  412: 'It was changed since the version that If-Match names',
  413: 'The body is too large',
  415: 'The body is not JSON',
  422: 'Refused: no room, policy, or hosts that do not fit',
  429: 'Too many; Retry-After says when',
  500: "A bug; the server's log has it",
  503: 'Passing trouble of the server or its store',
};

export function openApiDocument(version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const [name, endpoint] of Object.entries(endpoints) as [EndpointName, Endpoint][]) {
    const path = endpoint.path.replace(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [endpoint.method.toLowerCase()]: operation(name, endpoint) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Drover',
      version,
      description: 'Moves virtual machines between the hosts that run them, while they run.',
    },
    servers: [{ url: apiPrefix }],
    security: [{ bearer: [] }, { session: [] }],
    paths,
    components: {
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', description: 'A token: `drover token create`' },
        session: {
          type: 'apiKey',
          in: 'cookie',
          name: 'drover-session',
          description:
            'Set by login. What changes something also needs the word of the browser that the page is of this server, or the header `drover-session: 1`.',
        },
      },
      schemas: namedSchemas(),
    },
  };
}

const headers = {
  key: [
    'Idempotency-Key',
    'The same key with the same request again is answered with what it made',
    { type: 'string', maxLength: 200 },
  ],
  ifMatch: ['If-Match', 'Change it only if this is still its ETag', { type: 'string' }],
  lastEventId: ['Last-Event-ID', 'Go on after this event', { type: 'string' }],
  reason: ['drover-reason', 'Why, for the audit log; percent-encoded', { type: 'string', maxLength: 1500 }],
} as const;

function headerParameter([name, description, schema]: readonly [string, string, object]): Json {
  return { name, in: 'header', required: false, description, schema };
}

function operation(name: EndpointName, endpoint: Endpoint): Json {
  const { method, role } = endpoint;
  const request = exampleRequests[name];
  const parameters = [
    ...parametersOf(endpoint.params, 'path', request.params),
    ...parametersOf(endpoint.query, 'query', request.query),
    ...(endpoint.idempotent === true ? [headerParameter(headers.key)] : []),
    ...(endpoint.versioned === true && method !== 'GET' ? [headerParameter(headers.ifMatch)] : []),
    ...(endpoint.stream === 'events' ? [headerParameter(headers.lastEventId)] : []),
    ...(method !== 'GET' && role !== 'viewer' ? [headerParameter(headers.reason)] : []),
  ];
  const body =
    endpoint.body === undefined
      ? {}
      : {
          requestBody: {
            required: !endpoint.body.safeParse({}).success,
            content: {
              'application/json': { schema: schemaOf(endpoint.body, 'input'), example: request.body ?? {} },
            },
          },
        };
  return {
    operationId: name,
    tags: [endpoint.path.split('/')[1]],
    summary: endpoint.summary,
    description: role === 'none' ? 'Open to everybody.' : `Needs the role ${role}.`,
    'x-drover-role': role,
    ...(role === 'none' ? { security: [] } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...body,
    responses: { ...success(name, endpoint), ...failures(name, endpoint) },
  };
}

function success(name: EndpointName, endpoint: Endpoint): Json {
  const example = exampleReplies[name];
  switch (endpoint.stream) {
    case 'tunnel':
      return { '101': { description: 'Upgrade: drover-console; from here on raw bytes' } };
    case 'lines':
      return {
        '200': {
          description: 'One JSON value a line; the last says how many and their hash',
          content: { 'application/x-ndjson': { example } },
        },
      };
    case 'events':
      return {
        '200': {
          description: 'Server-sent events; the data of each is this type',
          content: { 'text/event-stream': { schema: schemaOf(endpoint.reply, 'output'), example } },
        },
      };
    default:
      return {
        [String(endpoint.status ?? 200)]: {
          description: endpoint.summary,
          ...answerHeaders(endpoint),
          content: { 'application/json': { schema: schemaOf(endpoint.reply, 'output'), example } },
        },
      };
  }
}

function answerHeaders({ query, versioned }: Endpoint): Json {
  const all = {
    ...(versioned === true && { ETag: { description: 'Its version, for If-Match', schema: { type: 'string' } } }),
    ...(query !== undefined &&
      'after' in query.shape && { Link: { description: '`rel="next"`: the next page', schema: { type: 'string' } } }),
  };
  return Object.keys(all).length === 0 ? {} : { headers: all };
}

function failures(name: EndpointName, endpoint: Endpoint): Json {
  const byStatus = Map.groupBy(errorsOf(name, endpoint), statusOfCode);
  return Object.fromEntries(
    [...byStatus]
      .toSorted(([a], [b]) => a - b)
      .map(([status, codes]) => [
        String(status),
        {
          description: `${statusWords[status] ?? 'Refused'}: ${codes.map((code) => `\`${code}\``).join(', ')}`,
          content: {
            'application/problem+json': {
              schema: { allOf: [schemaOf(problem, 'output'), { properties: { code: { enum: codes } } }] },
              example: exampleProblem(codes[0] ?? 'internal'),
            },
          },
        },
      ]),
  );
}

function exampleProblem(code: UserErrorCode): Json {
  return problemOf(new UserError(code, 'What happened, to which object.', 'What to do next.'));
}

function parametersOf(schema: z.ZodObject | undefined, place: 'path' | 'query', values: Json | undefined): Json[] {
  if (schema === undefined) return [];
  return Object.entries(schema.shape).map(([name, field]) => ({
    name,
    in: place,
    required: place === 'path',
    // The cast: a shape's fields are schemas of zod, which its types leave open.
    schema: schemaOf(field as z.ZodType, 'input'),
    ...(values?.[name] === undefined ? {} : { example: values[name] }),
  }));
}

/** A reference where the schema has a name. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Json {
  const id = registry.get(schema)?.id;
  return id === undefined ? inline(schema, io) : { $ref: `#/components/schemas/${id}` };
}

/** The schema itself, with references to those that have names. */
function inline(schema: z.ZodType, io: 'input' | 'output'): Json {
  const {
    $schema: _,
    $defs: __,
    ...rest
  } = z.toJSONSchema(schema, { io, target: 'draft-2020-12', metadata: registry });
  return JSON.parse(JSON.stringify(rest).replaceAll('"#/$defs/', '"#/components/schemas/')) as Json;
}

function namedSchemas(): Json {
  const uri = (id: string): string => `#/components/schemas/${id}`;
  const { schemas } = z.toJSONSchema(registry, { io: 'output', target: 'draft-2020-12', uri });
  const own = (key: string): boolean => key !== '$schema' && key !== '$id' && key !== 'id';
  const without = (schema: object): Json => Object.fromEntries(Object.entries(schema).filter(([key]) => own(key)));
  return Object.fromEntries(Object.entries(schemas).map(([id, schema]) => [id, without(schema)]));
}
