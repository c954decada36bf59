import assert from "node:assert/strict";
import { test } from "node:test";
import { ServiceError } from "../wire/errors.ts";
import { functionKey } from "../wire/function.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { SCALING_ENVIRONMENTS } from "../wire/limits.ts";
import type { ReserveRequest, WorkerReport, WorkerSlotApi } from "../wire/roles.ts";
import type { SlotInfo } from "../wire/slot.ts";
import { WorkerManager } from "./worker-manager.ts";

const spec = (name: string, revision = "r1"): FunctionSpec => ({
  functionArn: `arn:aws:lambda:us-east-1:000000000000:function:${name}`,
  functionName: name,
  version: "$LATEST",
  revision,
  accountId: "000000000000",
  region: "us-east-1",
  runtime: "provided.al2023",
  handler: "x",
  memoryMb: 128,
  timeoutMs: 3_000,
  ephemeralMb: 512,
  environment: {},
  code: "c",
  layers: [],
  logGroup: `/aws/lambda/${name}`,
  logFormat: "Text",
  reuse: "always",
});

/** A worker that only keeps the list of its slots: what the manager asks of it is what is looked at. */
class ListedWorker implements WorkerSlotApi {
  readonly workerId = "w1";
  readonly slots: Map<string, SlotInfo> = new Map();
  readonly ended: [string, string][] = [];
  #listener: (slot: SlotInfo) => void = () => {};

  createSlot(request: { slotId: string; spec: FunctionSpec }): Promise<SlotInfo> {
    const info = this.add(request.slotId, request.spec);
    return Promise.resolve(info);
  }

  add(slotId: string, of: FunctionSpec): SlotInfo {
    const info: SlotInfo = {
      slotId,
      workerId: this.workerId,
      functionKey: functionKey(of),
      functionArn: of.functionArn,
      version: of.version,
      state: "Idle",
      memoryMb: of.memoryMb,
      createdAtMs: 0,
      since: 0,
      invocations: 0,
      memoryBytes: 0,
      cpu: 0,
    };
    this.slots.set(slotId, info);
    return info;
  }

  die(slotId: string): void {
    const info = this.slots.get(slotId);
    assert.ok(info);
    this.slots.delete(slotId);
    this.#listener({ ...info, state: "Dead" });
  }

  endSlot(slotId: string, reason: string): Promise<void> {
    this.ended.push([slotId, reason]);
    this.die(slotId);
    return Promise.resolve();
  }

  listSlots(): Promise<readonly SlotInfo[]> {
    return Promise.resolve([...this.slots.values()]);
  }

  report(): Promise<WorkerReport> {
    throw new Error("the manager never asks for it");
  }

  onSlot(listener: (slot: SlotInfo) => void): () => void {
    this.#listener = listener;
    return () => {};
  }
}

const fleet = async (options: { accountConcurrency?: number } = {}) => {
  const worker = new ListedWorker();
  const clock = { nowMs: 1_000_000 };
  const manager = new WorkerManager({
    placement: {
      place: () => Promise.resolve({ workerId: "w1", reason: "only one", leaseId: "p", expiresAtMs: 0 }),
      cancel: () => Promise.resolve(),
    },
    metrics: { reserve: () => {}, placement: () => {}, throttled: () => {} },
    nowMs: () => clock.nowMs,
    accountConcurrency: options.accountConcurrency ?? 1_000,
  });
  await manager.addWorker(worker);
  return { worker, manager, clock };
};

const request = (of: FunctionSpec, reservedConcurrency: number | null = null): ReserveRequest => ({
  spec: of,
  requestId: "r",
  reservedConcurrency,
});

const throttledWith = (reason: string) => (error: unknown) =>
  error instanceof ServiceError && error.status === 429 && error.members["Reason"] === reason;

test("a released slot is reserved again, the last used first", async () => {
  const { manager, worker } = await fleet();
  const a = await manager.reserve(request(spec("f")));
  const b = await manager.reserve(request(spec("f")));
  assert.deepEqual([a.cold, b.cold], [true, true]);
  await manager.release(a.leaseId, "reusable");
  await manager.release(b.leaseId, "reusable");
  const again = await manager.reserve(request(spec("f")));
  assert.equal(again.slotId, b.slotId);
  assert.equal(again.cold, false);
  assert.equal(worker.slots.size, 2);
});

test("a slot never serves another function or another revision", async () => {
  const { manager } = await fleet();
  const first = await manager.reserve(request(spec("f")));
  await manager.release(first.leaseId, "reusable");
  assert.notEqual((await manager.reserve(request(spec("g")))).slotId, first.slotId);
  assert.notEqual((await manager.reserve(request(spec("f", "r2")))).slotId, first.slotId);
});

test("reserved concurrency is the function's limit, and is taken from the account's", async () => {
  const { manager } = await fleet({ accountConcurrency: 3 });
  const held = await manager.reserve(request(spec("f"), 1));
  await assert.rejects(
    manager.reserve(request(spec("f"), 1)),
    throttledWith("ReservedFunctionConcurrentInvocationLimitExceeded"),
  );
  await manager.reserve(request(spec("g")));
  await manager.reserve(request(spec("g")));
  await assert.rejects(manager.reserve(request(spec("g"))), throttledWith("ConcurrentInvocationLimitExceeded"));
  await manager.release(held.leaseId, "reusable");
  assert.equal((await manager.reserve(request(spec("f"), 1))).cold, false);
  assert.equal((await manager.concurrency()).account, 3);
});

test("reserved concurrency 0 switches a function off", async () => {
  const { manager } = await fleet();
  await assert.rejects(
    manager.reserve(request(spec("f"), 0)),
    throttledWith("ReservedFunctionConcurrentInvocationLimitExceeded"),
  );
});

test("reservations made at once do not share one place of the limit", async () => {
  const { manager } = await fleet({ accountConcurrency: 5 });
  const results = await Promise.allSettled(Array.from({ length: 9 }, () => manager.reserve(request(spec("f")))));
  assert.equal(results.filter((result) => result.status === "fulfilled").length, 5);
});

test("a function grows by so many environments and no faster", async () => {
  const { manager, clock } = await fleet({ accountConcurrency: 10_000 });
  for (let made = 0; made < SCALING_ENVIRONMENTS; made += 1) await manager.reserve(request(spec("f")));
  await assert.rejects(manager.reserve(request(spec("f"))), throttledWith("FunctionInvocationRateLimitExceeded"));
  clock.nowMs += 100;
  await manager.reserve(request(spec("f")));
});

test("a slot that died is never given out again", async () => {
  const { manager, worker } = await fleet();
  const lease = await manager.reserve(request(spec("f")));
  await manager.release(lease.leaseId, "reusable");
  worker.die(lease.slotId);
  assert.equal((await manager.reserve(request(spec("f")))).cold, true);
});

test("retire ends idle slots at once and busy ones at their release", async () => {
  const { manager, worker } = await fleet();
  const idle = await manager.reserve(request(spec("f")));
  const busy = await manager.reserve(request(spec("f")));
  const current = await manager.reserve(request(spec("f", "r2")));
  await manager.release(idle.leaseId, "reusable");
  await manager.retire(spec("f").functionArn, "r2");
  assert.deepEqual(worker.ended, [[idle.slotId, "retired"]]);
  await manager.release(busy.leaseId, "reusable");
  assert.deepEqual(worker.ended[1], [busy.slotId, "retired"]);
  await manager.release(current.leaseId, "reusable");
  assert.equal(worker.ended.length, 2);
});

test("a change of $LATEST leaves published versions warm, the function's end does not", async () => {
  const { manager, worker } = await fleet();
  const published = await manager.reserve(request({ ...spec("f", "r0"), version: "1" }));
  await manager.release(published.leaseId, "reusable");
  await manager.retire(spec("f").functionArn, "r2");
  assert.deepEqual(worker.ended, []);
  await manager.retire(spec("f").functionArn, null);
  assert.deepEqual(worker.ended, [[published.slotId, "retired"]]);
});

test("a manager that starts anew learns the slots from the workers", async () => {
  const { worker } = await fleet();
  worker.add("s1", spec("f"));
  const { manager } = await fleet();
  await manager.addWorker(worker);
  const lease = await manager.reserve(request(spec("f")));
  assert.deepEqual([lease.slotId, lease.cold], ["s1", false]);
});

test("a lease that nobody gives back ends, and its slot with it", async () => {
  const { manager, worker, clock } = await fleet();
  const lease = await manager.reserve(request(spec("f")));
  clock.nowMs = lease.expiresAtMs + 1;
  await manager.sweep();
  assert.deepEqual(worker.ended, [[lease.slotId, "broken"]]);
  assert.equal((await manager.concurrency()).account, 0);
});
