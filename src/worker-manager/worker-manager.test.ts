import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import { systemIds } from "../lib/ids.ts";
import { noTracer } from "../telemetry/tracing.ts";
import { ServiceError } from "../wire/errors.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { SCALING_ENVIRONMENTS } from "../wire/limits.ts";
import type { ReserveRequest } from "../wire/roles.ts";
import { ListedWorker, specOf } from "./testing.ts";
import { WorkerManager } from "./worker-manager.ts";

const fleet = async (options: { accountConcurrency?: number } = {}) => {
  const worker = new ListedWorker("w1");
  const clock = new VirtualClock();
  const manager = new WorkerManager({
    placement: {
      place: () => Promise.resolve({ workerId: "w1", reason: "only one", leaseId: "p" }),
      cancel: () => Promise.resolve(),
    },
    metrics: { reserve: () => {}, placement: () => {}, throttled: () => {} },
    tracer: noTracer,
    clock,
    ids: systemIds,
    accountConcurrency: options.accountConcurrency ?? 1_000,
  });
  await manager.addWorker(worker);
  return { worker, manager, clock };
};

const request = (of: FunctionSpec, reservedConcurrency: number | null = null): ReserveRequest => ({
  spec: of,
  requestId: "r",
  reservedConcurrency,
  trace: null,
});

const throttledWith = (reason: string) => (error: unknown) =>
  error instanceof ServiceError && error.status === 429 && error.members["Reason"] === reason;

test("a released slot is reserved again, the last used first", async () => {
  const { manager, worker } = await fleet();
  const a = await manager.reserve(request(specOf("f")));
  const b = await manager.reserve(request(specOf("f")));
  assert.deepEqual([a.cold, b.cold], [true, true]);
  await manager.release(a.leaseId, "reusable");
  await manager.release(b.leaseId, "reusable");
  const again = await manager.reserve(request(specOf("f")));
  assert.equal(again.slotId, b.slotId);
  assert.equal(again.cold, false);
  assert.equal(worker.slots.size, 2);
});

test("a slot never serves another function or another revision", async () => {
  const { manager } = await fleet();
  const first = await manager.reserve(request(specOf("f")));
  await manager.release(first.leaseId, "reusable");
  assert.notEqual((await manager.reserve(request(specOf("g")))).slotId, first.slotId);
  assert.notEqual((await manager.reserve(request(specOf("f", "r2")))).slotId, first.slotId);
});

test("reserved concurrency is the function's limit, and is taken from the account's", async () => {
  const { manager } = await fleet({ accountConcurrency: 3 });
  const held = await manager.reserve(request(specOf("f"), 1));
  await assert.rejects(
    manager.reserve(request(specOf("f"), 1)),
    throttledWith("ReservedFunctionConcurrentInvocationLimitExceeded"),
  );
  await manager.reserve(request(specOf("g")));
  await manager.reserve(request(specOf("g")));
  await assert.rejects(manager.reserve(request(specOf("g"))), throttledWith("ConcurrentInvocationLimitExceeded"));
  await manager.release(held.leaseId, "reusable");
  assert.equal((await manager.reserve(request(specOf("f"), 1))).cold, false);
  assert.equal((await manager.concurrency()).account, 3);
});

test("reserved concurrency 0 switches a function off", async () => {
  const { manager } = await fleet();
  await assert.rejects(
    manager.reserve(request(specOf("f"), 0)),
    throttledWith("ReservedFunctionConcurrentInvocationLimitExceeded"),
  );
});

test("reservations made at once do not share one place of the limit", async () => {
  const { manager } = await fleet({ accountConcurrency: 5 });
  const results = await Promise.allSettled(Array.from({ length: 9 }, () => manager.reserve(request(specOf("f")))));
  assert.equal(results.filter((result) => result.status === "fulfilled").length, 5);
});

test("a function grows by so many environments and no faster", async () => {
  const { manager, clock } = await fleet({ accountConcurrency: 10_000 });
  for (let made = 0; made < SCALING_ENVIRONMENTS; made += 1) await manager.reserve(request(specOf("f")));
  await assert.rejects(manager.reserve(request(specOf("f"))), throttledWith("FunctionInvocationRateLimitExceeded"));
  clock.pass(100);
  await manager.reserve(request(specOf("f")));
});

test("a slot that died is never given out again", async () => {
  const { manager, worker } = await fleet();
  const lease = await manager.reserve(request(specOf("f")));
  await manager.release(lease.leaseId, "reusable");
  worker.die(lease.slotId);
  assert.equal((await manager.reserve(request(specOf("f")))).cold, true);
});

test("retire ends idle slots at once and busy ones at their release", async () => {
  const { manager, worker } = await fleet();
  const idle = await manager.reserve(request(specOf("f")));
  const busy = await manager.reserve(request(specOf("f")));
  const current = await manager.reserve(request(specOf("f", "r2")));
  await manager.release(idle.leaseId, "reusable");
  await manager.retire(specOf("f").functionArn, "r2");
  assert.deepEqual(worker.ended, [[idle.slotId, "retired"]]);
  await manager.release(busy.leaseId, "reusable");
  assert.deepEqual(worker.ended[1], [busy.slotId, "retired"]);
  await manager.release(current.leaseId, "reusable");
  assert.equal(worker.ended.length, 2);
});

test("a change of $LATEST leaves published versions warm, the function's end does not", async () => {
  const { manager, worker } = await fleet();
  const published = await manager.reserve(request({ ...specOf("f", "r0"), version: "1" }));
  await manager.release(published.leaseId, "reusable");
  await manager.retire(specOf("f").functionArn, "r2");
  assert.deepEqual(worker.ended, []);
  await manager.retire(specOf("f").functionArn, null);
  assert.deepEqual(worker.ended, [[published.slotId, "retired"]]);
});

test("a manager that starts anew learns the slots from the workers", async () => {
  const { worker } = await fleet();
  worker.add("s1", specOf("f"));
  const { manager } = await fleet();
  await manager.addWorker(worker);
  const lease = await manager.reserve(request(specOf("f")));
  assert.deepEqual([lease.slotId, lease.cold], ["s1", false]);
});

test("a lease that nobody gives back ends, and its slot with it", async () => {
  const { manager, worker, clock } = await fleet();
  const lease = await manager.reserve(request(specOf("f")));
  clock.pass(lease.validMs + 1);
  await manager.sweep();
  assert.deepEqual(worker.ended, [[lease.slotId, "broken"]]);
  assert.equal((await manager.concurrency()).account, 0);
});
