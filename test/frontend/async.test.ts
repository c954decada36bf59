import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { VirtualClock } from "../../src/lib/virtual-clock.ts";
import { ASYNC_BACKOFF_MS_MAX, ASYNC_EVENT_AGE_S_MAX_DEFAULT, ASYNC_FREED_MS_MIN } from "../../src/wire/limits.ts";
import { ACCOUNT, functionInput, startHarness, temporaryDirectory } from "./harness.ts";
import type { Harness } from "./harness.ts";

/** Waits for a state that must come by itself; the test runner's own time limit ends it when it does not. */
const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await condition())) await sleep(2);
};

/** Long enough for whatever was due to have begun. */
const quiet = async (): Promise<void> => {
  for (let n = 0; n < 20; n += 1) await turn();
  await sleep(20);
};

const start = async (options: object = {}): Promise<Harness & { readonly clock: VirtualClock }> => {
  const clock = new VirtualClock({ wallMs: Date.now(), realTurns: true });
  const at = await startHarness({ auth: "none", clock, ...options });
  await at.client.send(new lambda.CreateFunctionCommand(await functionInput("f")));
  await until(async () => (await at.store.getFunction(ACCOUNT, "f", "$LATEST"))?.state === "Active");
  return { ...at, clock };
};

const event = (at: Harness, payload: string): Promise<lambda.InvokeCommandOutput> =>
  at.client.send(new lambda.InvokeCommand({ FunctionName: "f", InvocationType: "Event", Payload: payload }));

const empty = async (at: Harness): Promise<boolean> => (await at.store.nextDueMs()) === null;

describe("asynchronous invocations", () => {
  it("are accepted with 202 and run at once", async () => {
    await using at = await start();
    const accepted = await event(at, '{"n":1}');
    assert.deepEqual([accepted.StatusCode, accepted.Payload?.byteLength ?? 0], [202, 0]);
    await until(() => empty(at));
    assert.equal(at.echo.invoked.length, 1);
    assert.equal(at.echo.invoked[0]?.requestId, accepted.$metadata.requestId);
    assert.equal(Buffer.from(at.echo.invoked[0]?.payload ?? []).toString(), '{"n":1}');
    const old = await at.client.send(new lambda.InvokeAsyncCommand({ FunctionName: "f", InvokeArgs: '{"n":2}' }));
    assert.equal(old.Status, 202);
    await until(() => empty(at));
    assert.equal(at.echo.invoked.length, 2);
  });

  it("that fail run again after one and two minutes, with the same request id, and no more", async () => {
    await using at = await start();
    await event(at, '{"do":"fail"}');
    await until(() => at.echo.released.length === 1);
    for (const [minutes, count] of [
      [1, 2],
      [2, 3],
    ] as const) {
      await quiet();
      await at.clock.advance(minutes * 60_000 - 1);
      await quiet();
      assert.equal(at.echo.invoked.length, count - 1, "not a millisecond early");
      await at.clock.advance(1);
      await until(() => at.echo.released.length === count);
    }
    await until(() => empty(at));
    assert.equal(new Set(at.echo.invoked.map(({ requestId }) => requestId)).size, 1);
  });

  it("that are throttled wait longer each time, and run in the end", async () => {
    // The shortest that may be drawn: half of the back-off.
    await using at = await start({ random: () => 0 });
    at.echo.throttles = 3;
    await event(at, "{}");
    await until(() => at.echo.reserved.length === 1);
    for (const [delayMs, count] of [
      [500, 2],
      [1_000, 3],
      [2_000, 4],
    ] as const) {
      await quiet();
      await at.clock.advance(delayMs - 1);
      await quiet();
      assert.equal(at.echo.reserved.length, count - 1);
      await at.clock.advance(1);
      await until(() => at.echo.reserved.length === count);
    }
    await until(() => empty(at));
    assert.deepEqual(at.echo.released, ["reusable"]);
  });

  it("that the service cannot run are given up after six hours", async () => {
    await using at = await start();
    await event(at, '{"do":"break"}');
    await until(() => at.echo.released.length === 1);
    let steps = 0;
    while (!(await empty(at))) {
      await quiet();
      await at.clock.advance(ASYNC_BACKOFF_MS_MAX);
      steps += 1;
      assert.ok(steps * ASYNC_BACKOFF_MS_MAX <= ASYNC_EVENT_AGE_S_MAX_DEFAULT * 1_000 + 2 * ASYNC_BACKOFF_MS_MAX);
    }
    assert.ok(at.echo.released.every((outcome) => outcome === "broken"));
    assert.ok(at.echo.released.length > 50);
  });

  it("of a function that is gone are given up at once", async () => {
    await using at = await start();
    at.echo.throttles = 1;
    await event(at, "{}");
    await until(() => at.echo.reserved.length === 1);
    await at.client.send(new lambda.DeleteFunctionCommand({ FunctionName: "f" }));
    await quiet();
    await at.clock.advance(1_000);
    await until(() => empty(at));
    assert.deepEqual(at.echo.invoked, []);
    await assert.rejects(event(at, "{}"), { name: "ResourceNotFoundException" });
  });

  it("run a bounded number at a time, and all of them", async () => {
    await using at = await start({ asyncParallel: 3 });
    await Promise.all(Array.from({ length: 20 }, () => event(at, '{"do":"wait"}')));
    let most = 0;
    await until(async () => {
      most = Math.max(most, at.echo.leased);
      return empty(at);
    });
    assert.equal(at.echo.released.length, 20);
    assert.ok(most <= 3, `${most} at a time`);
  });

  it("of one function hold up nobody else's, however many wait and however long they run", async () => {
    await using at = await start();
    await at.client.send(new lambda.CreateFunctionCommand(await functionInput("g")));
    try {
      await Promise.all(Array.from({ length: 200 }, () => event(at, '{"do":"hold"}')));
      await until(() => at.echo.leased === 64);
      const input = { FunctionName: "g", InvocationType: "Event", Payload: '{"n":1}' } as const;
      const { $metadata } = await at.client.send(new lambda.InvokeCommand(input));
      await until(() => at.echo.released.length === 1);
      assert.equal(at.echo.invoked.at(-1)?.requestId, $metadata.requestId);
      assert.equal(at.echo.leased, 64);
    } finally {
      at.echo.letGo();
    }
    await until(() => empty(at));
    assert.equal(at.echo.released.length, 201);
  });

  it("of a function with reserved concurrency follow one another without a pause", async () => {
    await using at = await start();
    const reserve = { FunctionName: "f", ReservedConcurrentExecutions: 1 };
    await at.client.send(new lambda.PutFunctionConcurrencyCommand(reserve));
    await Promise.all(Array.from({ length: 30 }, () => event(at, '{"do":"wait"}')));
    // The clock stands still: what waited for a back-off would wait for ever.
    await until(() => empty(at));
    assert.equal(at.echo.released.length, 30);
    const asked = at.echo.reserved.length;
    assert.ok(asked <= 80, `${asked} reservations: a slot is asked for when there may be one`);
  });

  it("go on when a client's invocation has given the concurrency back", async () => {
    await using at = await start();
    const reserve = { FunctionName: "f", ReservedConcurrentExecutions: 1 };
    await at.client.send(new lambda.PutFunctionConcurrencyCommand(reserve));
    const held = at.client.send(new lambda.InvokeCommand({ FunctionName: "f", Payload: '{"do":"hold"}' }));
    await until(() => at.echo.leased === 1);
    await event(at, '{"n":1}');
    await until(() => at.echo.reserved.length === 2);
    await quiet();
    at.echo.letGo();
    await held;
    // Not a back-off: the pause between two tries, so that what comes free often is not asked for as often.
    await at.clock.advance(ASYNC_FREED_MS_MIN);
    await until(() => empty(at));
    assert.equal(at.echo.released.length, 2);
  });

  it("that the end of the process interrupted begin again as soon as it is back", async () => {
    const directory = await temporaryDirectory();
    try {
      {
        await using first = await start({ directory, asyncParallel: 0 });
        await event(first, '{"n":1}');
        // As a process that is killed in mid-run leaves it.
        const dead = { instance: "tests", incarnation: "dead" };
        const what = { count: 9, nowMs: first.clock.wallMs(), leaseMs: 3_600_000 };
        const { events } = await first.store.claim({ accountId: ACCOUNT, functionName: "f" }, what, dead);
        assert.equal(events.length, 1);
      }
      await using second = await startHarness({ directory });
      await until(() => empty(second));
      assert.equal(second.echo.invoked.length, 1);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("survive the end of the process", async () => {
    const directory = await temporaryDirectory();
    try {
      {
        await using first = await start({ directory, asyncParallel: 0 });
        await event(first, '{"n":1}');
        assert.deepEqual(first.echo.invoked, []);
      }
      await using second = await startHarness({ directory });
      await until(() => empty(second));
      assert.equal(Buffer.from(second.echo.invoked[0]?.payload ?? []).toString(), '{"n":1}');
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
