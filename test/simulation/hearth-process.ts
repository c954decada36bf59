import { AsyncQueue } from "../../src/frontend/queue/async-queue.ts";
import { FunctionCache } from "../../src/frontend/function-cache.ts";
import { invoke } from "../../src/frontend/invoke.ts";
import type { InvokeServices } from "../../src/frontend/invoke.ts";
import { Lifecycle } from "../../src/frontend/lifecycle.ts";
import type { Clock } from "../../src/lib/clock.ts";
import type { Ids } from "../../src/lib/ids.ts";
import type { Random } from "../../src/lib/random.ts";
import { noTurns } from "../../src/lib/turn-meter.ts";
import { Placement } from "../../src/placement/placement.ts";
import type { CodeStore } from "../../src/store/code.ts";
import type { Store } from "../../src/store/store.ts";
import type { Logger, Metrics } from "../../src/telemetry/index.ts";
import { noTracer } from "../../src/telemetry/index.ts";
import { HEARTBEAT_MS } from "../../src/wire/limits.ts";
import type { InvocationResult } from "../../src/wire/invocation.ts";
import type { WorkerManagerApi, WorkerSlotApi } from "../../src/wire/roles.ts";
import { WorkerManager } from "../../src/worker-manager/worker-manager.ts";
import { LOG_RATE_KIB_DEFAULT } from "../../src/worker/log-rate.ts";
import { MicroManager } from "../../src/worker/micro-manager.ts";
import { faultyStore } from "./faulty-store.ts";
import type { Journal } from "./journal.ts";
import { ProcessClock } from "./process-clock.ts";
import { ScriptedHypervisor } from "./scripted-vm.ts";
import { watchReservations } from "./reservations.ts";
import type { ReservationLimits } from "./reservations.ts";
import type { GuestWorld } from "./scripted-vm.ts";

export const ACCOUNT = "123456789012";
export const REGION = "us-east-1";
const GIB = 1024 ** 3;
const EVENTS_AT_ONCE = 64;

/** How a process of a world may be broken on purpose, to see that the invariants notice. */
export interface Sabotage {
  readonly store?: (store: Store) => Store;
  readonly manager?: (manager: WorkerManager) => WorkerManagerApi;
  /** The worker as the Worker Manager sees it. */
  readonly worker?: (worker: WorkerSlotApi) => WorkerSlotApi;
  /** The clock that the Worker Manager is given. */
  readonly managerClock?: (clock: Clock) => Clock;
}

export interface ProcessParts {
  readonly world: GuestWorld;
  readonly journal: Journal;
  readonly ids: Ids;
  readonly random: Random;
  /** The store that outlives the process. */
  readonly store: Store;
  readonly isDiskFailing: () => boolean;
  readonly limits: ReservationLimits;
  readonly cpus: number;
  readonly slotsMax: number;
  readonly slotIdleMs: number;
  readonly sabotage: Sabotage;
}

const silent = (): void => {};
const metrics: Metrics = new Proxy({} as Metrics, { get: () => silent });

const code: CodeStore = {
  put: () => Promise.reject(new Error("no uploads here")),
  get: (digest) => Promise.resolve({ digest, zipPath: null, zipBytes: 1, imagePath: `/code/${digest}` }),
  problem: () => null,
  collect: () => Promise.resolve(),
  isShort: () => Promise.resolve(false),
};

/** One life of Hearth: the real roles, in one process, over scripted microVMs and a store that outlives it. */
export class HearthProcess {
  readonly hypervisor: ScriptedHypervisor;
  readonly manager: WorkerManager;
  readonly worker: MicroManager;
  readonly queue: AsyncQueue;
  readonly clock: ProcessClock;
  readonly #services: InvokeServices;
  readonly #journal: Journal;
  readonly #sabotage: Sabotage;
  #isDead = false;

  constructor(parts: ProcessParts) {
    const { journal, ids, random } = parts;
    this.#journal = journal;
    this.#sabotage = parts.sabotage;
    this.clock = new ProcessClock(parts.world.clock, (error) => journal.broken(`a timer failed: ${String(error)}`));
    const { clock } = this;
    this.hypervisor = new ScriptedHypervisor({ ...parts.world, clock });
    this.worker = workerOf(parts, clock, this.hypervisor);
    const placement = new Placement({ clock, ids, random });
    this.manager = new WorkerManager({
      placement,
      metrics,
      tracer: noTracer,
      clock: parts.sabotage.managerClock?.(clock) ?? clock,
      ids,
      accountConcurrency: parts.limits.account,
    });
    const disk = { isFailing: parts.isDiskFailing, isDead: () => this.#isDead };
    const store = faultyStore(parts.store, clock, random, disk);
    this.#services = this.#servicesOf(parts, parts.sabotage.store?.(store) ?? store);
    this.queue = new AsyncQueue(this.#services, EVENTS_AT_ONCE);
    clock.every(HEARTBEAT_MS, async () => {
      placement.heartbeat(await this.worker.report());
      await this.manager.sweep();
    });
    this.#placement = placement;
  }

  readonly #placement: Placement;

  async start(): Promise<void> {
    this.#placement.heartbeat(await this.worker.report());
    await this.manager.addWorker(this.#sabotage.worker?.(this.worker) ?? this.worker);
    this.queue.start();
  }

  /** Calls a function, as a client does. Never settles when the process is killed meanwhile. */
  call(functionName: string, requestId: string, payload: Uint8Array): Promise<InvocationResult> {
    return invoke(this.#services, { ...requestOf(functionName, requestId, payload), asynchronous: false });
  }

  /** Hands in an event; resolves when it is accepted. Never settles when the process is killed meanwhile. */
  send(functionName: string, eventId: string, payload: Uint8Array): Promise<void> {
    return this.queue.enqueue({
      eventId,
      accountId: ACCOUNT,
      functionName,
      qualifier: "$LATEST",
      payload,
      traceId: null,
    });
  }

  /** `kill -9`: nothing of it goes on, and its guests are gone. */
  crash(): void {
    this.#isDead = true;
    this.clock.kill();
    for (const vm of this.hypervisor.live) vm.vanish();
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    this.#journal.isStopping = true;
    await this.queue.drain();
    await this.worker[Symbol.asyncDispose]();
  }

  #servicesOf(parts: ProcessParts, store: Store): InvokeServices {
    const config = {
      instance: "simulated",
      accountId: ACCOUNT,
      region: REGION,
      runtimes: ["provided.al2023"],
      reuse: "always",
      concurrencyMax: parts.limits.account,
    } as const;
    const log = logOf(parts.journal);
    const services = {
      store,
      code,
      workerManager: watchReservations(
        parts.sabotage.manager?.(this.manager) ?? this.manager,
        this.clock,
        parts.limits,
        (what) => parts.journal.broken(what),
      ),
      workers: () => this.worker,
      clock: this.clock,
      turns: noTurns,
      ids: parts.ids,
      random: parts.random,
      config,
      log,
      metrics,
      tracer: noTracer,
    };
    const functions = new FunctionCache(store, code, config, this.clock);
    return { ...services, functions, lifecycle: new Lifecycle(services, functions) };
  }
}

const requestOf = (functionName: string, requestId: string, payload: Uint8Array) => ({
  functionName,
  qualifier: null,
  requestId,
  payload,
  clientContext: null,
  traceId: null,
  trace: null,
});

const workerOf = (parts: ProcessParts, clock: Clock, hypervisor: ScriptedHypervisor): MicroManager =>
  new MicroManager({
    workerId: "w",
    clock,
    ids: parts.ids,
    metrics,
    tracer: noTracer,
    boot: { hypervisor, root: { path: "/root", readOnly: true }, init: "/init", network: null, onConsole: silent },
    network: () => Promise.resolve(null),
    runtime: () => ({
      drives: [],
      argv: ["/var/task/bootstrap"],
      environment: {},
      readAtStart: null,
      version: "v",
      versionArn: "arn",
    }),
    image: (digest) => Promise.resolve(`/code/${digest}`),
    logSink: () => ({ write: silent, leftOut: silent, flush: () => Promise.resolve() }),
    logRateKib: LOG_RATE_KIB_DEFAULT,
    warn: (message) => parts.journal.note(`warn ${message}`),
    cpu: "soft",
    cpus: parts.cpus,
    slotsMax: parts.slotsMax,
    memory: () => Promise.resolve({ totalBytes: 64 * GIB, availableBytes: 48 * GIB }),
    memoryBytesTotal: 64 * GIB,
    memoryStalls: () => ({ look: () => Promise.resolve(), [Symbol.dispose]: silent }),
    scratchDisk: () => ({ totalBytes: 2 ** 40, availableBytes: 2 ** 39 }),
    scratchBytesMax: null,
    load: () =>
      Promise.resolve({
        cpuShare: 0.5,
        networkShare: 0,
        storageBytesTotal: 100 * GIB,
        storageBytesAvailable: 50 * GIB,
      }),
    memoryMbMax: 1_000_000,
    slotIdleMs: parts.slotIdleMs,
    poolFloor: 2,
    poolMax: 16,
    warmMemoryMb: [128],
  });

/** Hearth's own log, of which the queue's last words on an event are read. */
const logOf = (journal: Journal): Logger => {
  const tell = (fields: { readonly requestId?: string; readonly why?: string }, message: string): void => {
    journal.note(`log ${message}${fields.why === undefined ? "" : `: ${fields.why}`}`);
    if (fields.requestId === undefined || fields.why === undefined) return;
    const work = journal.work.get(Number(fields.requestId.slice("event-".length)));
    if (work !== undefined) work.givenUp = fields.why;
  };
  return { debug: silent, info: silent, warn: tell, error: tell } as unknown as Logger;
};
