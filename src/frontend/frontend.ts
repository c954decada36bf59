import { ASYNC_PARALLEL_DEFAULT } from "../wire/limits.ts";
import { CodeLinks } from "./api/code-links.ts";
import type { ApiServices } from "./api/context.ts";
import { AsyncQueue } from "./async-queue.ts";
import { noAuthenticator, sigV4Authenticator } from "./auth.ts";
import type { Credentials } from "./auth.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { FunctionCache } from "./function-cache.ts";
import { Lifecycle } from "./lifecycle.ts";
import { buildServer } from "./server.ts";
import type { Dependencies } from "./services.ts";

export type { Credentials } from "./auth.ts";
export type { Clock } from "./clock.ts";
export { REUSE_TAG } from "./function-cache.ts";
export type { Dependencies, FrontendConfig } from "./services.ts";

export interface FrontendOptions extends Omit<Dependencies, "clock"> {
  readonly listen: { readonly host: string; readonly port: number };
  /** The keys that may sign, or `none`: whoever reaches the address may do everything. */
  readonly auth: readonly Credentials[] | "none";
  readonly clock?: Clock;
  /** Asynchronous invocations at once; 0 leaves the queue to other Frontends. */
  readonly asyncParallel?: number;
}

/** A Frontend that serves. */
export interface Frontend extends AsyncDisposable {
  readonly address: string;
  /** The port that was really taken. */
  readonly port: number;
  /** Takes no new request and no new event, and waits for those under way. Disposing does the same. */
  drain(): Promise<void>;
}

/**
 * Starts a Frontend: ends what a crash left half done, listens, and runs the queue of asynchronous invocations.
 * The dependencies stay the caller's. Rejects when the address cannot be listened on.
 */
export const startFrontend = async (options: FrontendOptions): Promise<Frontend> => {
  const clock = options.clock ?? systemClock;
  const dependencies: Dependencies = { ...options, clock };
  const { store, code, config, log } = dependencies;
  const functions = new FunctionCache(store, config, clock);
  const lifecycle = new Lifecycle(dependencies, functions);
  const parallel = options.asyncParallel ?? ASYNC_PARALLEL_DEFAULT;
  const queue = new AsyncQueue({ ...dependencies, functions, lifecycle }, parallel);
  const services: ApiServices = { ...dependencies, functions, lifecycle, queue, links: new CodeLinks(clock) };
  const authenticate =
    options.auth === "none"
      ? noAuthenticator
      : sigV4Authenticator({ credentials: options.auth, region: config.region, nowMs: () => clock.now() });

  await lifecycle.repair();
  await code.collect(await store.digestsInUse());
  const app = buildServer(services, authenticate);
  await app.listen({ host: options.listen.host, port: options.listen.port });
  if (parallel > 0) queue.start();
  const address = app.server.address();
  if (address === null || typeof address === "string") throw new Error("The HTTP server has no address");
  log.info({ address: address.address, port: address.port }, "the Lambda API is served");

  let draining: Promise<void> | null = null;
  const end = async (): Promise<void> => {
    await Promise.all([app.close(), queue[Symbol.asyncDispose]()]);
    await lifecycle.drain();
  };
  const drain = (): Promise<void> => (draining ??= end());
  return { address: address.address, port: address.port, drain, [Symbol.asyncDispose]: drain };
};
