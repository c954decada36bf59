import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { slotGone, throttled } from "../../src/wire/errors.ts";
import type {
  InvocationReport,
  InvocationRequest,
  InvocationResult,
  InvocationStream,
} from "../../src/wire/invocation.ts";
import type {
  ReleaseOutcome,
  ReserveRequest,
  SlotLease,
  WorkerInvokeApi,
  WorkerManagerApi,
} from "../../src/wire/roles.ts";

/** What the next invocations do, by the event's member `do`. */
export interface EchoEvent {
  readonly do?: "fail" | "break" | "wait" | "hold";
}

/**
 * What stands below a Frontend, without microVMs: slots without end, and functions that answer with what they got.
 * It also counts, so that a test can see what the Frontend asked for.
 */
export class Echo implements WorkerManagerApi, WorkerInvokeApi {
  readonly reserved: ReserveRequest[] = [];
  readonly released: ReleaseOutcome[] = [];
  readonly retired: (readonly [arn: string, except: string | null])[] = [];
  readonly invoked: InvocationRequest[] = [];
  /** Invocations that find their slot gone before the next one runs. */
  slotsGone = 0;
  /** Reservations to refuse before the next one is granted. */
  throttles = 0;
  readonly #leases = new Map<string, ReserveRequest>();
  #onFreed: (functionArn: string) => void = () => {};
  readonly #hold = Promise.withResolvers<undefined>();

  reserve(request: ReserveRequest): Promise<SlotLease> {
    this.reserved.push(request);
    if (
      request.reservedConcurrency !== null &&
      this.#running(request.spec.functionArn) >= request.reservedConcurrency
    ) {
      return Promise.reject(throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
    }
    if (this.throttles > 0) {
      this.throttles -= 1;
      return Promise.reject(throttled("ConcurrentInvocationLimitExceeded"));
    }
    const leaseId = `lease-${this.reserved.length}`;
    this.#leases.set(leaseId, request);
    const slot = { slotId: "slot-1", workerId: "worker-1", validMs: 10_000, cold: false };
    return Promise.resolve({ leaseId, ...slot });
  }

  release(leaseId: string, outcome: ReleaseOutcome): Promise<void> {
    const request = this.#leases.get(leaseId);
    if (request === undefined) throw new Error(`Released twice: ${leaseId}`);
    this.#leases.delete(leaseId);
    this.released.push(outcome);
    this.#onFreed(request.spec.functionArn);
    return Promise.resolve();
  }

  retire(functionArn: string, exceptRevision: string | null): Promise<void> {
    this.retired.push([functionArn, exceptRevision]);
    return Promise.resolve();
  }

  onFreed(listener: (functionArn: string) => void): () => void {
    this.#onFreed = listener;
    return () => (this.#onFreed = () => {});
  }

  concurrency(): Promise<{ account: number; byFunction: Record<string, number> }> {
    return Promise.resolve({ account: this.#leases.size, byFunction: {} });
  }

  #running(functionArn: string): number {
    return [...this.#leases.values()].filter(({ spec }) => spec.functionArn === functionArn).length;
  }

  /** Leases that nobody gave back. */
  get leased(): number {
    return this.#leases.size;
  }

  /** Lets those that hold end, now and from now on. */
  letGo(): void {
    this.#hold.resolve(undefined);
  }

  async invoke(lease: SlotLease, request: InvocationRequest): Promise<InvocationResult> {
    if (this.slotsGone > 0) {
      this.slotsGone -= 1;
      throw slotGone("slot-1 is gone");
    }
    this.invoked.push(request);
    const event = JSON.parse(Buffer.from(request.payload).toString("utf8")) as EchoEvent | null;
    if (event?.do === "break") throw new Error("the worker broke");
    if (event?.do === "wait") await sleep(50);
    if (event?.do === "hold") await this.#hold.promise;
    const report = this.#report(lease);
    if (event?.do !== "fail") return { payload: request.payload, contentType: null, error: null, report };
    const body = Buffer.from(JSON.stringify({ errorType: "Error", errorMessage: "as told" }));
    const error = { kind: "Unhandled", errorType: "Error", body } as const;
    return { payload: body, contentType: null, error, report };
  }

  async invokeStreaming(lease: SlotLease, request: InvocationRequest): Promise<InvocationStream> {
    const { payload, error, report } = await this.invoke(lease, request);
    const half = Math.ceil(payload.byteLength / 2);
    const chunks = [Buffer.from(payload.subarray(0, half)), Buffer.from(payload.subarray(half))];
    return {
      contentType: "text/plain",
      body: Readable.from(error === null ? chunks : [], { objectMode: false }),
      done: Promise.resolve({ error, report }),
    };
  }

  #report(lease: SlotLease): InvocationReport {
    const version = this.#leases.get(lease.leaseId)?.spec.version ?? "?";
    return {
      durationMs: 1,
      billedDurationMs: 1,
      initDurationMs: null,
      memoryMb: 128,
      maxMemoryUsedMb: 64,
      logTail: Buffer.from(`START\nEND\nREPORT of ${lease.leaseId}\n`),
      executedVersion: version,
      slotId: lease.slotId,
      coldStart: lease.cold,
    };
  }
}
