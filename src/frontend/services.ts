import type { Clock } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import type { Turns } from "../lib/turn-meter.ts";
import type { Random } from "../lib/random.ts";
import type { CodeStore } from "../store/code.ts";
import type { Store } from "../store/store.ts";
import type { Logger, Metrics, Tracer } from "../telemetry/index.ts";
import type { WorkerInvokeApi, WorkerManagerApi } from "../wire/roles.ts";
import type { ReusePolicy } from "../wire/slot.ts";

export interface FrontendConfig {
  /**
   * Names this Frontend among all that share the store, over restarts. Only one process may use a name at a time: one
   * that starts takes over at once what its predecessor had claimed.
   */
  readonly instance: string;
  readonly accountId: string;
  readonly region: string;
  /** Identifiers of the runtimes that are installed, e.g. nodejs24.x. */
  readonly runtimes: readonly string[];
  /** For functions without the tag `hearth:reuse`. */
  readonly reuse: ReusePolicy;
  /** Concurrent executions of the account. */
  readonly concurrencyMax: number;
}

/** What the Frontend stands on. All of it is given; none of it is the Frontend's to close. */
export interface Dependencies {
  readonly store: Store;
  readonly code: CodeStore;
  readonly workerManager: WorkerManagerApi;
  /** The worker of that id. Throws ServiceError when it is not known. */
  readonly workers: (workerId: string) => WorkerInvokeApi;
  readonly clock: Clock;
  /** Told when the loop works for a request. */
  readonly turns: Turns;
  readonly ids: Ids;
  /** Draws how long what was throttled waits. */
  readonly random: Random;
  readonly config: FrontendConfig;
  readonly log: Logger;
  readonly metrics: Pick<Metrics, "invoke" | "event" | "request" | "connectionEnded">;
  readonly tracer: Tracer;
}
