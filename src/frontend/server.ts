import { hash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
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
  }
}

const INTERNAL_ERROR = 500;
const BAD_REQUEST = 400;
/** Of a path's one variable part: the longest ARN, encoded. */
const PARAMETER_CHARS_MAX = 32_768;
/** A body over its limit is read on to this length and thrown away, so that its sender hears the answer. */
const REFUSED_BODY_BYTES_MAX: number = 2 * limits.REQUEST_BODY_BYTES_MAX;
const REFUSED_BODY_MS_MAX = 10_000;
const EMPTY_BODY: Buffer = Buffer.alloc(0);

const BODY_LIMITS: ReadonlyMap<string, number> = new Map([
  ["CreateFunction", limits.REQUEST_BODY_BYTES_MAX],
  ["UpdateFunctionCode", limits.REQUEST_BODY_BYTES_MAX],
  ["Invoke", limits.PAYLOAD_BYTES_MAX],
  ["InvokeWithResponseStream", limits.PAYLOAD_BYTES_MAX],
  ["InvokeAsync", limits.PAYLOAD_ASYNC_BYTES_MAX],
]);
const bodyLimitOf = (operation: string): number => BODY_LIMITS.get(operation) ?? limits.CONTROL_BODY_BYTES_MAX;

/** AWS's name of an operation in the error for a body too large: Invoke is called InvokeFunction there. */
const bodyTooLarge = (operation: string): ServiceError => {
  const invocation = operation.startsWith("Invoke");
  return new ServiceError(
    invocation ? "RequestTooLargeException" : "RequestEntityTooLargeException",
    413,
    `Request must be smaller than ${bodyLimitOf(operation)} bytes for the ${operation === "Invoke" ? "InvokeFunction" : operation} operation`,
  );
};

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

const handle = async (
  services: ApiServices,
  operations: readonly Operation[],
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> => {
  const body = bodyOf(request);
  const { authenticated } = request;
  if (authenticated !== null) authenticated.checkBody(authenticated.needsHash ? hash("sha256", body, "hex") : "");
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

/** Reads on and throws away, up to a bound, what a client still sends: one that is cut off does not hear the answer. */
const discardBody = async (clock: Clock, incoming: IncomingMessage): Promise<void> => {
  if (incoming.complete) return;
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
const fromServer = (error: unknown, operation: string | undefined): ServiceError => {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : INTERNAL_ERROR;
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") return bodyTooLarge(operation ?? "this");
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") {
    return new ServiceError("UnsupportedMediaTypeException", 415, "The content type of the request body is not valid.");
  }
  if (code.startsWith("FST_") && status < INTERNAL_ERROR) {
    return new ServiceError("BadRequestException", BAD_REQUEST, error instanceof Error ? error.message : code);
  }
  return asServiceError(error);
};

const answerError = async (
  services: ApiServices,
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> => {
  const { operation } = request.routeOptions.config as { readonly operation?: string };
  const error = thrown instanceof ServiceError ? thrown : fromServer(thrown, operation);
  if (error.status >= INTERNAL_ERROR && error.status !== 501) {
    services.log.error({ err: error, requestId: request.id, operation }, "a request failed in the service");
  }
  // The client's own mistakes are no failures of the service (HTTP conventions for server spans).
  if (error.status >= INTERNAL_ERROR) request.span?.fail(error.name, error.message);
  await discardBody(services.clock, request.raw);
  return send(request, reply, encodeError(error));
};

/** Every operation's route, straight from the model. */
const addOperations = (app: FastifyInstance, services: ApiServices): void => {
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
      bodyLimit: Math.max(...operations.map(({ name }) => bodyLimitOf(name))),
      config: { operation: first.name },
      handler: (request, reply) => handle(services, operations, request, reply),
    });
  }
};

/** GetFunction's Code.Location: the link itself is the permission. */
const addDownloads = (app: FastifyInstance, services: ApiServices): void => {
  app.get<{ Params: { digest: string }; Querystring: Record<string, unknown> }>(
    `${CODE_PATH}/:digest`,
    { config: { open: true } },
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
export const buildServer = (services: ApiServices, authenticate: Authenticator): FastifyInstance => {
  const app = fastify({
    genReqId: () => services.ids.uuid(),
    requestIdHeader: false,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    requestTimeout: limits.HTTP_REQUEST_MS_MAX,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: PARAMETER_CHARS_MAX },
    frameworkErrors: (error, request, reply) => {
      send(request, reply, encodeError(fromServer(error, undefined)));
    },
  });
  // A client that ends its half of the connection after the request (`nc -N`) waits for its answer. Node has this as a
  // property of its server only (`httpAllowHalfOpen`).
  Object.assign(app.server, { httpAllowHalfOpen: true });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  app.decorateRequest("authenticated", null);
  app.decorateRequest("operation", null);
  app.decorateRequest("span", null);
  app.decorateRequest("startedMs", 0);
  app.addHook("onRequest", async (request) => {
    request.startedMs = services.clock.monotonicMs();
    const { open } = request.routeOptions.config as { readonly open?: boolean };
    if (open === true) return;
    const { method = "GET", url = "/", headers, socket } = request.raw;
    request.authenticated = authenticate({ method, url, headers, isPrivate: isPrivate(socket) });
  });
  app.addHook("onResponse", async (request, reply) => {
    const { operation = "unknown" } = request.routeOptions.config as { readonly operation?: string };
    services.metrics.request(request.operation ?? operation, reply.statusCode);
    request.span?.set({ "http.response.status_code": reply.statusCode });
    request.span?.end();
  });
  app.setErrorHandler((error, request, reply) => answerError(services, error, request, reply));
  app.setNotFoundHandler(() => {
    throw unknownOperation();
  });
  addOperations(app, services);
  addDownloads(app, services);
  return app;
};
