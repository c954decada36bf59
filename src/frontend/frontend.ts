import { ASYNC_PARALLEL_DEFAULT, CODE_COLLECT_MS } from "../wire/limits.ts";
import { CodeLinks } from "./api/code-links.ts";
import { JsonReader } from "./api/json.ts";
import type { ApiServices } from "./api/context.ts";
import { AsyncQueue } from "./queue/async-queue.ts";
import { sigV4Authenticator } from "./auth.ts";
import type { Authenticator, Keys } from "./auth.ts";
import { FunctionCache } from "./function-cache.ts";
import { Bodies } from "./http/bodies.ts";
import { Draining } from "./http/draining.ts";
import type { ReadinessCheck } from "./http/health.ts";
import { CONNECTIONS_MAX_DEFAULT } from "./http/limits.ts";
import { createListener } from "./http/listener.ts";
import { Certificate } from "./http/tls.ts";
import type { TlsFiles } from "./http/tls.ts";
import { openAuthenticator } from "./http/web-pages.ts";
import { Lifecycle } from "./lifecycle.ts";
import { buildServer } from "./server.ts";
import type { Dependencies } from "./services.ts";
import type { HttpReading } from "../telemetry/index.ts";

export { fixedKeys } from "./auth.ts";
export type { Credentials, Keys } from "./auth.ts";
export type { TlsFiles } from "./http/tls.ts";
export { REUSE_TAG } from "./function-cache.ts";
export type { Dependencies, FrontendConfig } from "./services.ts";

export interface FrontendOptions extends Dependencies {
  readonly listen: { readonly host: string; readonly port: number };
  /** The keys that may sign, or `none`: whoever reaches the address may do everything. */
  readonly auth: Keys | "none";
  /** Without authentication: names besides the address that the service is called by. */
  readonly allowedHosts?: readonly string[];
  /** Connections at once; what the service needs for itself is not among them. */
  readonly connectionsMax?: number;
  /** What TLS is served with; plain HTTP when it is not given. */
  readonly tls?: TlsFiles | null;
  /** Why no work can be done now, a word each; what `GET /ready` asks. Ready when it is not given. */
  readonly ready?: ReadinessCheck;
  /** Asynchronous invocations at once; 0 leaves the queue to other Frontends. */
  readonly asyncParallel?: number;
}

/** A Frontend that serves. Disposing it ends it at once; what `drain` does not wait for is cut off. */
export interface Frontend extends AsyncDisposable {
  readonly address: string;
  /** The port that was really taken. */
  readonly port: number;
  /** What the HTTP server holds now. */
  readonly holds: HttpReading;
  /** What the queue of asynchronous invocations does now. */
  readonly queue: AsyncQueue["activity"];
  /** What is in that queue. Rejects when the store cannot be read. */
  backlog(): ReturnType<AsyncQueue["backlog"]>;
  /**
   * Takes no new request (503) and no new event from now on, goes on listening, and resolves when nothing is under way
   * any more.
   */
  drain(): Promise<void>;
}

const authenticatorOf = ({ auth, config, listen, clock, allowedHosts = [] }: FrontendOptions): Authenticator =>
  auth === "none"
    ? openAuthenticator(listen.host, allowedHosts)
    : sigV4Authenticator({ keys: auth, region: config.region, nowMs: () => clock.wallMs() });

const servicesOf = (options: FrontendOptions): ApiServices => {
  const { clock } = options;
  const functions = new FunctionCache(options.store, options.code, options.config, clock);
  const lifecycle = new Lifecycle(options, functions);
  const invocation = { ...options, functions, lifecycle };
  const queue = new AsyncQueue(invocation, options.asyncParallel ?? ASYNC_PARALLEL_DEFAULT);
  return { ...invocation, queue, links: new CodeLinks(clock), json: new JsonReader(clock, options.turns) };
};

/** Removes code that no function uses any more, now and then. */
const collectForever = async ({ store, code, clock, log }: ApiServices, stopped: AbortSignal): Promise<void> => {
  while (!stopped.aborted) {
    try {
      await code.collect(await store.digestsInUse());
    } catch (error) {
      log.error({ err: error }, "unused code could not be collected");
    }
    await clock.sleep(CODE_COLLECT_MS, stopped);
  }
};

/**
 * Starts a Frontend: ends what a crash left half done, listens, and runs the queue of asynchronous invocations.
 * The dependencies stay the caller's. Rejects when the address cannot be listened on.
 */
export const startFrontend = async (options: FrontendOptions): Promise<Frontend> => {
  const services = servicesOf(options);
  const { log, lifecycle, queue } = services;
  await lifecycle.repair();
  const stopped = new AbortController();
  const collecting = collectForever(services, stopped.signal);
  const certificate = options.tls ? new Certificate(options.tls, options.clock, log) : null;
  const listener = createListener({
    certificate,
    clock: options.clock,
    log,
    connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX_DEFAULT,
    onConnectionEnd: (end) => options.metrics.connectionEnded(end),
  });
  const bodies = new Bodies(options.clock);
  const draining = new Draining();
  const ready = options.ready ?? (async () => []);
  const app = buildServer(services, authenticatorOf(options), { listener, bodies, draining, ready });
  await app.listen({ ...options.listen });
  if (options.asyncParallel !== 0) queue.start();
  const address = app.server.address();
  if (address === null || typeof address === "string") throw new Error("The HTTP server has no address");
  const { address: host, port } = address;
  log.info({ host, port }, "the Lambda API is served");

  const stopAccepting = (): Promise<unknown> => {
    stopped.abort();
    queue.stop();
    return draining.begin();
  };
  return {
    address: host,
    port,
    get queue() {
      return queue.activity;
    },
    backlog: () => queue.backlog(),
    get holds() {
      return {
        connections: listener.connections.counts,
        bodies: bodies.held,
        certificateExpiresAtMs: certificate?.current.expiresAtMs ?? null,
      };
    },
    drain: async () => {
      await Promise.all([stopAccepting(), collecting, queue.drain(), lifecycle.drain()]);
    },
    [Symbol.asyncDispose]: async () => {
      void stopAccepting();
      const closing = app.close();
      app.server.closeAllConnections();
      await Promise.all([closing, collecting, lifecycle.drain()]);
      listener[Symbol.dispose]();
      certificate?.[Symbol.dispose]();
    },
  };
};
