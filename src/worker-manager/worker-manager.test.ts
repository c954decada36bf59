import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import { systemIds } from "../lib/ids.ts";
import { noTracer } from "../telemetry/tracing.ts";
import { ServiceError } from "../wire/errors.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { SCALING_ENVIRONMENTS, SLOT_WAIT_MS_MAX } from "../wire/limits.ts";
import type { ReserveRequest, SlotLease } from "../wire/roles.ts";
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
    metrics: { reserve: () => {}, placement: () => {}, throttled: () => {}, slotWait: () => {} },
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

/** Lets everything that waits for nothing but its turn go on. */
const turns = async (): Promise<void> => {
  for (let n = 0; n < 5; n += 1) await turn();
};

/** A fleet whose starts wait until they are told to begin, with `count` reservations that wait for them. */
const waitingFleet = async (count: number) => {
  const made = await fleet();
  made.worker.holds = true;
  const served: SlotLease[] = [];
  const refused: unknown[] = [];
  const reserve = (): void =>
    void made.manager.reserve(request(specOf("f"))).then(
      (lease) => served.push(lease),
      (error: unknown) => refused.push(error),
    );
  for (let n = 0; n < count; n += 1) reserve();
  await turns();
  return { ...made, served, refused };
};

test("a slot that is given back goes to who waits for a start, and the last start is taken back", async () => {
  const { manager, worker, served } = await waitingFleet(3);
  const [first = "", , last = ""] = worker.held;
  worker.begin(first);
  await turns();
  assert.deepEqual(
    served.map(({ slotId, cold }) => [slotId, cold]),
    [[first, true]],
  );
  worker.ready(first);
  await manager.release(served[0]?.leaseId ?? "", "reusable");
  await turns();
  assert.deepEqual(served.map(({ slotId, cold }) => [slotId, cold])[1], [first, false]);
  assert.equal(worker.held.includes(last), false, "nobody waits for it");
  assert.equal(worker.held.length, 1);
  assert.equal((await manager.concurrency()).account, 2);
});

test("a start that was taken back too late is not lost: its slot serves the next once it is idle", async () => {
  const { manager, worker, served } = await waitingFleet(2);
  const [first = "", second = ""] = worker.held;
  worker.begin(first);
  await turns();
  worker.begin(second);
  await manager.release(served[0]?.leaseId ?? "", "reusable");
  await turns();
  assert.equal(served.length, 2);
  const unused = served[1]?.slotId === first ? second : first;
  // Either is right; the other one has no lease, and is given out when its init is over.
  worker.ready(unused);
  const next = await manager.reserve(request(specOf("f")));
  assert.equal(next.slotId, unused);
  assert.equal(next.cold, false);
});

test("who waits too long is refused with a 503, and leaves neither a start nor a count", async () => {
  const { manager, worker, clock, refused } = await waitingFleet(2);
  await clock.advance(SLOT_WAIT_MS_MAX);
  await turns();
  assert.equal(refused.length, 2);
  for (const error of refused) {
    assert.ok(error instanceof ServiceError);
    assert.equal(error.status, 503);
    assert.match(error.message, /No slot was free within 50 s/);
  }
  assert.deepEqual(worker.held, []);
  assert.equal((await manager.concurrency()).account, 0);
});

test("those that wait count against every limit", async () => {
  const { manager, worker } = await fleet({ accountConcurrency: 3 });
  worker.holds = true;
  const waiting = [1, 2].map(() => manager.reserve(request(specOf("f"), 2)));
  await assert.rejects(
    manager.reserve(request(specOf("f"), 2)),
    throttledWith("ReservedFunctionConcurrentInvocationLimitExceeded"),
  );
  void manager.reserve(request(specOf("g")));
  await assert.rejects(manager.reserve(request(specOf("h"))), throttledWith("ConcurrentInvocationLimitExceeded"));
  await turns();
  for (const slotId of worker.held) worker.begin(slotId);
  assert.equal((await Promise.all(waiting)).length, 2);
});

test("an invocation that does not wait for a slow init leaves the slot to the next", async () => {
  const { manager, worker, served } = await waitingFleet(1);
  const [slotId = ""] = worker.held;
  worker.begin(slotId);
  await turns();
  await manager.release(served[0]?.leaseId ?? "", "starting");
  assert.deepEqual(worker.ended, []);
  const next = manager.reserve(request(specOf("f")));
  await turns();
  assert.equal(worker.held.length, 1, "it may not be given out before it is ready");
  worker.ready(slotId);
  assert.equal((await next).slotId, slotId);
  await turns();
  assert.deepEqual(worker.held, [], "and the start asked for meanwhile is taken back");
});

test("a reservation that waits while its function is changed is served, and its slot ends after it", async () => {
  const { manager, worker, served } = await waitingFleet(1);
  const [slotId = ""] = worker.held;
  await manager.retire(specOf("f").functionArn, "r2");
  worker.begin(slotId);
  await turns();
  await manager.release(served[0]?.leaseId ?? "", "reusable");
  assert.deepEqual(worker.ended, [[slotId, "retired"]]);
});

test("a worker's slots that were starting when it was taken in are given out when they are ready", async () => {
  const { manager } = await fleet();
  const other = new ListedWorker("w2");
  other.add("s", specOf("f"), "Init");
  await manager.addWorker(other);
  other.ready("s");
  assert.equal((await manager.reserve(request(specOf("f")))).slotId, "s");
});
