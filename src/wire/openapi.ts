/**
 * The OpenAPI 3.1 document of the public API, written from the endpoint table. Served by the server and kept in
 * docs/reference/openapi.json, where a test holds it fresh.
 */
import { z } from 'zod';
import { apiPrefix } from './client.ts';
import { endpoints } from './endpoints.ts';
import type { Endpoint } from './endpoints.ts';
import { problem } from './errors.ts';

type Json = Readonly<Record<string, unknown>>;

const errorStatuses = {
  '400': 'The request is malformed, or has a field that is not known',
  '401': 'No valid bearer token',
  '404': 'No such object',
  '409': 'The object is busy, exists already, or is in the wrong state',
  '422': 'Refused: no room, policy, or hosts that do not fit',
  '503': 'Passing trouble of the server or its store',
};

/** Endpoints that take an Idempotency-Key. */
const idempotent = new Set(['createVm', 'migrateVm']);

export function openApiDocument(version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const [name, endpoint] of Object.entries(endpoints) as [string, Endpoint][]) {
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
    security: [{ bearer: [] }],
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
      schemas: { Problem: schemaOf(problem, 'output') },
    },
  };
}

function operation(name: string, endpoint: Endpoint): Json {
  const parameters = [
    ...parametersOf(endpoint.params, 'path'),
    ...parametersOf(endpoint.query, 'query'),
    ...(idempotent.has(name)
      ? [
          {
            name: 'Idempotency-Key',
            in: 'header',
            required: false,
            description: 'The same key with the same request again is answered with what it made',
            schema: { type: 'string', maxLength: 200 },
          },
        ]
      : []),
    ...(endpoint.stream === 'events'
      ? [
          {
            name: 'Last-Event-ID',
            in: 'header',
            required: false,
            description: 'Go on after this event',
            schema: { type: 'string' },
          },
        ]
      : []),
  ];
  const body =
    endpoint.body === undefined
      ? {}
      : {
          requestBody: {
            required: !endpoint.body.safeParse({}).success,
            content: { 'application/json': { schema: schemaOf(endpoint.body, 'input') } },
          },
        };
  return {
    operationId: name,
    summary: endpoint.summary,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...body,
    responses: { ...success(endpoint), ...failures(endpoint) },
  };
}

function success(endpoint: Endpoint): Json {
  switch (endpoint.stream) {
    case 'tunnel':
      return { '101': { description: 'Upgrade: drover-console; from here on raw bytes' } };
    case 'events':
      return {
        '200': {
          description: 'Server-sent events; the data of each is this type',
          content: { 'text/event-stream': { schema: schemaOf(endpoint.reply, 'output') } },
        },
      };
    default:
      return {
        [String(endpoint.status ?? 200)]: {
          description: endpoint.summary,
          content: { 'application/json': { schema: schemaOf(endpoint.reply, 'output') } },
        },
      };
  }
}

function failures(endpoint: Endpoint): Json {
  const possible = Object.entries(errorStatuses).filter(([status]) => {
    if (status === '404') return endpoint.params !== undefined || endpoint.body !== undefined;
    if (status === '409' || status === '422') return endpoint.method !== 'GET';
    return true;
  });
  const content = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } };
  return Object.fromEntries(possible.map(([status, description]) => [status, { description, content }]));
}

function parametersOf(schema: z.ZodObject | undefined, place: 'path' | 'query'): Json[] {
  if (schema === undefined) return [];
  return Object.entries(schema.shape).map(([name, field]) => ({
    name,
    in: place,
    required: place === 'path',
    // The cast: a shape's fields are schemas of zod, which its types leave open.
    schema: schemaOf(field as z.ZodType, 'input'),
  }));
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, target: 'draft-2020-12' });
  return rest;
}
