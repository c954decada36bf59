import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { VirtualClock } from "../../src/lib/virtual-clock.ts";
import {
  ASYNC_BACKOFF_MS_MAX,
  ASYNC_LEASE_MS,
  ASYNC_RETRY_DELAYS_MS,
  CODE_LOCATION_MS,
} from "../../src/wire/limits.ts";
import { ACCOUNT, functionInput, startHarness, temporaryDirectory } from "./harness.ts";
import type { Harness } from "./harness.ts";

const HOUR_MS = 3_600_000;
/** Both directions in which somebody may set a clock. */
const STEPS_MS = [-HOUR_MS, HOUR_MS] as const;
const START_MS = Date.UTC(2026, 5, 1);

const clockAt = (wallMs: number): VirtualClock => new VirtualClock({ wallMs, realTurns: true });

/** Waits for a state that must come by itself; the test runner's own time limit ends it when it does not. */
const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await condition())) await sleep(2);
};

const start = async (clock: VirtualClock, options: object = {}): Promise<Harness> => {
  const at = await startHarness({ auth: "none", clock, ...options });
  if ((await at.store.getFunction(ACCOUNT, "f", "$LATEST")) === null) {
    await at.client.send(new lambda.CreateFunctionCommand(await functionInput("f")));
  }
  await until(async () => (await at.store.getFunction(ACCOUNT, "f", "$LATEST"))?.state === "Active");
  return at;
};

const send = (at: Harness, payload: string): Promise<lambda.InvokeCommandOutput> =>
  at.client.send(new lambda.InvokeCommand({ FunctionName: "f", InvocationType: "Event", Payload: payload }));

const isEmpty = async (at: Harness): Promise<boolean> => (await at.store.nextDueMs()) === null;

/** Lets time go on in pieces, with real time for the store and the sockets in each, until something is so. */
const passUntil = async (clock: VirtualClock, stepMs: number, condition: () => boolean): Promise<void> => {
  while (!condition()) {
    await clock.advance(stepMs);
    await sleep(2);
  }
};

describe("a wall clock that is set while Hearth runs", () => {
  for (const stepMs of STEPS_MS) {
    const how = stepMs < 0 ? "back an hour" : "forward an hour";

    it(`${how}: events that are due run at once`, async () => {
      const clock = clockAt(START_MS);
      await using at = await start(clock, { asyncParallel: 3 });
      await Promise.all(Array.from({ length: 100 }, (_, n) => send(at, JSON.stringify({ do: "wait", n }))));
      clock.stepWall(stepMs);
      await Promise.all(Array.from({ length: 100 }, (_, n) => send(at, JSON.stringify({ n: n + 100 }))));
      await until(() => isEmpty(at));
      assert.equal(at.echo.invoked.length, 200);
      assert.equal(clock.monotonicMs(), 0);
    });

    it(`${how}: a retry comes after its delay, neither sooner nor later`, async () => {
      const clock = clockAt(START_MS);
      await using at = await start(clock);
      await send(at, '{"do":"fail"}');
      await until(() => at.echo.released.length === 1);
      clock.stepWall(stepMs);
      await passUntil(clock, 1_000, () => at.echo.invoked.length === 2);
      const afterMs = (at.echo.invoked[1]?.receivedAtMs ?? 0) - stepMs - START_MS;
      assert.ok(afterMs >= ASYNC_RETRY_DELAYS_MS[0], `after ${afterMs} ms`);
      // Some of it passed while the retry was being written.
      assert.ok(afterMs <= ASYNC_RETRY_DELAYS_MS[0] + ASYNC_BACKOFF_MS_MAX, `after ${afterMs} ms`);
    });

    it(`${how}: the oldest event is as old as it was`, async () => {
      const clock = clockAt(START_MS);
      await using at = await start(clock);
      await send(at, '{"do":"fail"}');
      await until(() => at.echo.released.length === 1);
      await clock.advance(5_000);
      clock.stepWall(stepMs);
      await clock.advance(5_000);
      assert.deepEqual(await at.frontend.backlog(), { waiting: 1, oldestAgeMs: 10_000 });
    });

    it(`${how}: the next process goes on with the delays of the last one`, async () => {
      const directory = await temporaryDirectory();
      try {
        const clock = clockAt(START_MS);
        {
          await using first = await start(clock, { directory });
          await send(first, '{"do":"fail"}');
          await until(() => first.echo.released.length === 1);
          await passUntil(clock, 1_000, () => first.echo.released.length === 2);
          clock.stepWall(stepMs);
          await clock.advance(ASYNC_LEASE_MS / 2);
          await until(async () => (await first.store.eventOffsetMs()) === stepMs);
        }
        const beganMs = clock.wallMs();
        const later = clockAt(beganMs);
        await using second = await start(later, { directory });
        await passUntil(later, 1_000, () => second.echo.invoked.length === 1);
        const afterMs = (second.echo.invoked[0]?.receivedAtMs ?? 0) - beganMs;
        assert.ok(afterMs <= ASYNC_RETRY_DELAYS_MS[1], `after ${afterMs} ms`);
        assert.ok(afterMs >= ASYNC_RETRY_DELAYS_MS[1] - ASYNC_LEASE_MS, `after ${afterMs} ms`);
        await until(() => isEmpty(second));
      } finally {
        await rm(directory, { recursive: true });
      }
    });

    it(`${how}: a link to code stays good for its time, and no longer`, async () => {
      const clock = clockAt(START_MS);
      await using at = await start(clock);
      const { Code } = await at.client.send(new lambda.GetFunctionCommand({ FunctionName: "f" }));
      const status = async (): Promise<number> => {
        const response = await fetch(Code?.Location ?? "");
        await response.arrayBuffer();
        return response.status;
      };
      clock.stepWall(stepMs);
      assert.equal(await status(), 200);
      clock.pass(CODE_LOCATION_MS);
      clock.stepWall(-stepMs);
      clock.pass(1);
      assert.equal(await status(), 403);
    });
  }

  for (const throttles of [0, 1]) {
    const then = throttles === 0 ? "" : ", when it is throttled once it is due";
    it(`set back while Hearth does not run: no event waits longer than the longest delay${then}`, async () => {
      const directory = await temporaryDirectory();
      try {
        {
          await using first = await start(clockAt(START_MS), { directory, asyncParallel: 0 });
          await send(first, "{}");
        }
        const clock = clockAt(START_MS - HOUR_MS);
        await using second = await start(clock, { directory });
        second.echo.throttles = throttles;
        await passUntil(clock, 1_000, () => second.echo.invoked.length === 1 || clock.monotonicMs() >= HOUR_MS);
        assert.ok(clock.monotonicMs() <= ASYNC_BACKOFF_MS_MAX + 60_000, `after ${clock.monotonicMs()} ms`);
      } finally {
        await rm(directory, { recursive: true });
      }
    });
  }
});
