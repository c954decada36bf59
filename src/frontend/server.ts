import { hash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import fastify from "fastify";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Clock } from "../lib/clock.ts";
import { isLoopbackAddress } from "../lib/loopback.ts";
import { ServiceError } from "../wire/errors.ts";
import * as limits from "../wire/limits.ts";
import { CODE_PATH } from "./api/code-links.ts";
import type { ApiRequest, ApiServices } from "./api/context.ts";
import { decodeInput } from "./api/decode.ts";
import { asServiceError, encodeError, encodeOutput } from "./api/encode.ts";
import type { HttpAnswer } from "./api/encode.ts";
import { OPERATIONS } from "./api/model.ts";
import type { Operation } from "./api/model.ts";
import type { Span } from "../telemetry/tracing.ts";
import { isBuilt, isStream, runOperation } from "./api/operations.ts";
import { requestSpan } from "./request-trace.ts";
import type { Authenticated, Authenticator } from "./auth.ts";
import type { Bodies, Body } from "./http/bodies.ts";
import type { Draining } from "./http/draining.ts";
import { addHealth } from "./http/health.ts";
import type { ReadinessCheck } from "./http/health.ts";
import { REFUSED_BODY_BYTES_MAX, REFUSED_BODY_MS_MAX } from "./http/limits.ts";
import type { Listener } from "./http/listener.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Set before the body is read; null on the routes that are not signed. */
    authenticated: Authenticated | null;
    /** Name of the operation; null until it is known. */
    operation: string | null;
    /** Since then the operation is known, too. */
    span: Span | null;
    /** When its first byte came, on the monotonic clock. */
    startedMs: number;
    /** Its body while it is held; null when it has none. */
    held: Body | null;
  }
}

const INTERNAL_ERROR = 500;
const BAD_REQUEST = 400;
/** Of a path's one variable part: the longest ARN, encoded. */
const PARAMETER_CHARS_MAX = 32_768;
const REQUEST_TIMEOUT = 408;
const EMPTY_BODY: Buffer = Buffer.alloc(0);
const EMPTY_SHA256: string = hash("sha256", "", "hex");

const BODY_LIMITS: ReadonlyMap<string, number> = new Map([
  ["CreateFunction", limits.REQUEST_BODY_BYTES_MAX],
  ["UpdateFunctionCode", limits.REQUEST_BODY_BYTES_MAX],
  ["Invoke", limits.PAYLOAD_BYTES_MAX],
  ["InvokeWithResponseStream", limits.PAYLOAD_BYTES_MAX],
  ["InvokeAsync", limits.PAYLOAD_ASYNC_BYTES_MAX],
]);
const bodyLimitOf = (operation: string): number => BODY_LIMITS.get(operation) ?? limits.CONTROL_JSON_BYTES_MAX;

/** AWS's name of an operation in the error for a body too large: Invoke is called InvokeFunction there. */
const bodyTooLarge = (operation: string): ServiceError => {
  const invocation = operation.startsWith("Invoke");
  return new ServiceError(
    invocation ? "RequestTooLargeException" : "RequestEntityTooLargeException",
    413,
    `Request must be smaller than ${bodyLimitOf(operation)} bytes for the ${operation === "Invoke" ? "InvokeFunction" : operation} operation`,
  );
};

/** What a route says of itself. */
interface RouteConfig {
  /** Name of its operation; of several that share method and path the first. */
  readonly operation?: string;
  readonly bodyBytesMax?: number;
  /** Whoever asks may have it. */
  readonly open?: boolean;
}

const send = (request: FastifyRequest, reply: FastifyReply, answer: HttpAnswer): FastifyReply =>
  reply
    .code(answer.status)
    .headers({ ...answer.headers, "x-amzn-requestid": request.id })
    .send(answer.body);

const queryOf = (request: FastifyRequest): URLSearchParams => {
  const { url = "" } = request.raw;
  const at = url.indexOf("?");
  return new URLSearchParams(at < 0 ? "" : url.slice(at + 1));
};

const pathOf = ({ raw: { url = "" } }: FastifyRequest): string => {
  const at = url.indexOf("?");
  return at < 0 ? url : url.slice(0, at);
};

/** Of the operations that share method and path, the one whose fixed query is there; else the one that has none. */
const choose = (operations: readonly Operation[], query: URLSearchParams): Operation | undefined => {
  const fits = (operation: Operation): boolean =>
    [...operation.fixedQuery].every(([name, value]) => query.get(name) === value);
  return operations.filter(fits).sort((a, b) => b.fixedQuery.size - a.fixedQuery.size)[0];
};

const unknownOperation = (): ServiceError =>
  new ServiceError("UnknownOperationException", 404, "The requested operation is not known to this service.");

const bodyOf = (request: FastifyRequest): Buffer => (Buffer.isBuffer(request.body) ? request.body : EMPTY_BODY);

/** Whether what comes by this connection can have been changed by nobody between. */
const isPrivate = (socket: Socket): boolean => {
  if ("encrypted" in socket && socket.encrypted === true) return true;
  return isLoopbackAddress(socket.remoteAddress ?? "");
};

/** What an operation's body says; of one that is a payload nothing. */
const membersOf = async (
  { json }: ApiServices,
  operation: Operation,
  body: Buffer,
): Promise<Readonly<Record<string, unknown>>> =>
  operation.input.members.some(({ binding }) => binding.at === "body") ? json.read(operation, body) : {};

const handle = async (
  services: ApiServices,
  draining: Draining,
  operations: readonly Operation[],
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> => {
  // Its body is here: the work begins.
  services.turns.begin({ kind: "request", name: operations[0]?.name ?? "unknown" });
  draining.enter(reply.raw);
  // One that has a body was checked with it.
  if (request.held === null) request.authenticated?.checkBody(EMPTY_SHA256);
  const body = bodyOf(request);
  const query = queryOf(request);
  const operation = choose(operations, query);
  if (operation === undefined) throw unknownOperation();
  request.operation = operation.name;
  const span = requestSpan(services.tracer, `Lambda/${operation.name}`, request.headers, {
    kind: "server",
    startedMs: request.startedMs,
    attributes: {
      "rpc.system.name": "aws-api",
      "rpc.method": `Lambda/${operation.name}`,
      "aws.request_id": request.id,
      "http.request.method": operation.method,
      "http.route": operation.path,
      "url.path": pathOf(request),
    },
  });
  request.span = span;
  const api: ApiRequest = { requestId: request.id, headers: request.headers, span, answerHeaders: {} };
  // An operation that is not built says so before it finds fault with its input.
  const input = isBuilt(operation.name)
    ? decodeInput(operation, {
        labels: request.params as Readonly<Record<string, string>>,
        query,
        header: (name) => {
          const value = request.headers[name];
          return Array.isArray(value) ? value.join(",") : value;
        },
        body,
        members: await membersOf(services, operation, body),
      })
    : {};
  const result = await runOperation(operation.name, services, input, api);
  if (isStream(result)) {
    const headers = { ...api.answerHeaders, ...result.headers, "x-amzn-requestid": request.id };
    return reply
      .code(result.status)
      .headers(headers)
      .send(result.stream ?? "");
  }
  const answer = encodeOutput(operation, result);
  return send(request, reply, { ...answer, headers: { ...api.answerHeaders, ...answer.headers } });
};

/** What the HTTP server stands on besides the services. */
export interface HttpParts {
  readonly listener: Listener;
  readonly bodies: Bodies;
  readonly draining: Draining;
  readonly ready: ReadinessCheck;
}

/** Reads a request's body and checks that it is the one that was signed: then its sender has proven its key. */
const readBody = async ({ bodies, listener }: HttpParts, request: FastifyRequest): Promise<Buffer> => {
  const { authenticated, raw } = request;
  const { operation = "this", bodyBytesMax = limits.CONTROL_JSON_BYTES_MAX } = request.routeOptions
    .config as RouteConfig;
  listener.continue(raw);
  const body = await bodies.read(raw, {
    bytesMax: bodyBytesMax,
    tooLarge: () => bodyTooLarge(operation),
    isProven: authenticated?.isProven === true,
    needsHash: authenticated?.needsHash === true,
  });
  request.held = body;
  authenticated?.checkBody(body.sha256);
  body.prove();
  listener.connections.prove(raw.socket);
  return body.bytes;
};

/** Reads on and throws away, up to a bound, what a client still sends: one that is cut off does not hear the answer. */
const discardBody = async (clock: Clock, incoming: IncomingMessage): Promise<void> => {
  if (incoming.complete || incoming.destroyed) return;
  let bytes = 0;
  await new Promise<void>((resolve) => {
    const timer = clock.after(REFUSED_BODY_MS_MAX, resolve);
    const end = (): void => {
      timer[Symbol.dispose]();
      resolve();
    };
    incoming.on("data", (chunk: Buffer) => {
      bytes += chunk.byteLength;
      if (bytes > REFUSED_BODY_BYTES_MAX) end();
    });
    incoming.once("end", end).once("close", end);
    incoming.resume();
  });
};

/** Errors of the HTTP server itself, in the API's words. */
const fromServer = (error: unknown): ServiceError => {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : INTERNAL_ERROR;
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") {
    return new ServiceError("UnsupportedMediaTypeException", 415, "The content type of the request body is not valid.");
  }
  if (code.startsWith("FST_") && status < INTERNAL_ERROR) {
    return new ServiceError("BadRequestException", BAD_REQUEST, error instanceof Error ? error.message : code);
  }
  return asServiceError(error);
};

/**
 * Answers at once and takes the connection's end only when the rest of the request was read, or enough of it: a client
 * that is cut off while it sends does not hear the answer.
 */
const sendAndDiscard = (
  clock: Clock,
  request: FastifyRequest,
  reply: FastifyReply,
  { status, headers, body }: HttpAnswer,
): FastifyReply => {
  const parts = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from(body);
    await discardBody(clock, request.raw);
  };
  return reply
    .code(status)
    .headers({ ...headers, "content-length": Buffer.byteLength(body), "x-amzn-requestid": request.id })
    .send(Readable.from(parts()));
};

const answerError = async (
  services: ApiServices,
  { listener }: HttpParts,
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> => {
  const { operation } = request.routeOptions.config as RouteConfig;
  const error = thrown instanceof ServiceError ? thrown : fromServer(thrown);
  if (error.status >= INTERNAL_ERROR && error.status !== 501) {
    services.log.error({ err: error, requestId: request.id, operation }, "a request failed in the service");
  }
  // The client's own mistakes are no failures of the service (HTTP conventions for server spans).
  if (error.status >= INTERNAL_ERROR) request.span?.fail(error.name, error.message);
  const answer = encodeError(error);
  const { complete, socket } = request.raw;
  const connection = complete && listener.connections.isProven(socket) ? {} : { connection: "close" };
  // A client that waits to be told sends no body now, and one that trickles is not waited for.
  if (complete || listener.waits(request.raw) || error.status === REQUEST_TIMEOUT) {
    return send(request, reply, { ...answer, headers: { ...answer.headers, ...connection } });
  }
  return sendAndDiscard(services.clock, request, reply, { ...answer, headers: { ...answer.headers, ...connection } });
};

/** Every operation's route, straight from the model. */
const addOperations = (app: FastifyInstance, services: ApiServices, draining: Draining): void => {
  const routes = new Map<string, Operation[]>();
  for (const operation of OPERATIONS.values()) {
    const key = `${operation.method} ${operation.path}`;
    routes.set(key, [...(routes.get(key) ?? []), operation]);
  }
  for (const operations of routes.values()) {
    const [first] = operations;
    if (first === undefined) continue;
    app.route({
      method: first.method,
      url: first.path.replaceAll(/\{(\w+)\}/g, ":$1"),
      config: {
        operation: first.name,
        bodyBytesMax: Math.max(...operations.map(({ name }) => bodyLimitOf(name))),
      } satisfies RouteConfig,
      handler: (request, reply) => handle(services, draining, operations, request, reply),
    });
  }
};

/** GetFunction's Code.Location: the link itself is the permission. */
const addDownloads = (app: FastifyInstance, services: ApiServices): void => {
  app.get<{ Params: { digest: string }; Querystring: Record<string, unknown> }>(
    `${CODE_PATH}/:digest`,
    { config: { open: true } satisfies RouteConfig },
    async (request, reply) => {
      const { digest } = request.params;
      const query = queryOf(request);
      if (!services.links.isGood(digest, query.get("Expires"), query.get("Signature"))) {
        throw new ServiceError("AccessDeniedException", 403, "Request has expired or its signature is not valid.");
      }
      const image = await services.code.get(digest);
      if (image === null || image.zipPath === null) {
        throw new ServiceError("ResourceNotFoundException", 404, `There is no archive of the code ${digest}.`);
      }
      return reply
        .headers({ "content-type": "application/zip", "content-length": String(image.zipBytes) })
        .send(createReadStream(image.zipPath));
    },
  );
};

/** The HTTP server of the API, not yet listening. A request's head is authenticated before its body is read. */
export const buildServer = (services: ApiServices, authenticate: Authenticator, parts: HttpParts): FastifyInstance => {
  const { listener } = parts;
  const app = fastify({
    genReqId: () => services.ids.uuid(),
    requestIdHeader: false,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    serverFactory: (handler) => listener.createServer(handler),
    clientErrorHandler: () => undefined,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: PARAMETER_CHARS_MAX },
    frameworkErrors: (error, request, reply) => {
      send(request, reply, encodeError(fromServer(error)));
    },
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (request: FastifyRequest) => readBody(parts, request));
  app.decorateRequest("authenticated", null);
  app.decorateRequest("operation", null);
  app.decorateRequest("span", null);
  app.decorateRequest("startedMs", 0);
  app.decorateRequest("held", null);
  app.addHook("onRequest", async (request, reply) => {
    reply.raw.once("close", () => request.held?.[Symbol.dispose]());
    request.startedMs = services.clock.monotonicMs();
    const { open, operation } = request.routeOptions.config as RouteConfig;
    services.turns.begin({ kind: "request", name: operation ?? "unknown" });
    if (open === true) return;
    // Before the signature is checked: it is the answer to all.
    parts.draining.check();
    const { method = "GET", url = "/", headers, socket } = request.raw;
    request.authenticated = authenticate({ method, url, headers, isPrivate: isPrivate(socket) });
    if (request.authenticated.isProven) listener.connections.prove(socket);
  });
  app.addHook("onResponse", async (request, reply) => {
    const { operation = "unknown" } = request.routeOptions.config as RouteConfig;
    services.metrics.request(request.operation ?? operation, reply.statusCode);
    request.span?.set({ "http.response.status_code": reply.statusCode });
    request.span?.end();
  });
  app.setErrorHandler((error, request, reply) => answerError(services, parts, error, request, reply));
  app.setNotFoundHandler(() => {
    throw unknownOperation();
  });
  addOperations(app, services, parts.draining);
  addDownloads(app, services);
  addHealth(app, services.clock, parts.draining, parts.ready);
  return app;
};
