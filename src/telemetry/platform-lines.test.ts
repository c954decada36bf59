import assert from "node:assert/strict";
import { test } from "node:test";
import { logStreamName, platformJson, platformText } from "./platform-lines.ts";
import type { PlatformEvent } from "./platform-lines.ts";

const report: Extract<PlatformEvent, { type: "report" }> = {
  type: "report",
  requestId: "r-1",
  durationMs: 3.0123,
  billedDurationMs: 113.2,
  memoryMb: 128,
  maxMemoryUsedMb: 36,
  initDurationMs: 110.1,
  status: "success",
  errorType: null,
  traceId: null,
};

test("REPORT is written as Lambda writes it", () => {
  assert.equal(
    platformText(0, report),
    "REPORT RequestId: r-1\tDuration: 3.01 ms\tBilled Duration: 114 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\tInit Duration: 110.10 ms\t",
  );
  assert.ok(
    platformText(0, { ...report, initDurationMs: null, status: "error", errorType: "Runtime.ExitError" }).endsWith(
      "\tMax Memory Used: 36 MB\tStatus: error\tError Type: Runtime.ExitError\t",
    ),
  );
  assert.ok(
    platformText(0, { ...report, status: "timeout", errorType: "Sandbox.Timedout" }).endsWith("\tStatus: timeout\t"),
  );
  assert.ok(
    platformText(0, { ...report, traceId: "Root=1-2-3;Parent=4;Sampled=1" }).endsWith("\t\nXRAY TraceId: 1-2-3\t"),
  );
});

test("the other lines", () => {
  assert.equal(
    platformText(0, { type: "start", requestId: "r", version: "$LATEST" }),
    "START RequestId: r Version: $LATEST",
  );
  assert.equal(
    platformText(0, { type: "timeout", requestId: "r", timeoutMs: 3000 }),
    "1970-01-01T00:00:00.000Z r Task timed out after 3.00 seconds\n",
  );
  assert.equal(
    platformText(0, {
      type: "initReport",
      durationMs: 5,
      phase: "init",
      status: "error",
      errorType: "Runtime.Unknown",
    }),
    "INIT_REPORT Init Duration: 5.00 ms\tPhase: init\tStatus: error\tError Type: Runtime.Unknown",
  );
  assert.equal(
    platformText(0, { type: "fault", requestId: "r", message: "Runtime exited", errorType: "Runtime.ExitError" }),
    "RequestId: r Error: Runtime exited\nRuntime.ExitError",
  );
});

test("the JSON form has Lambda's names", () => {
  assert.deepEqual(JSON.parse(platformJson(0, report)), {
    time: "1970-01-01T00:00:00.000Z",
    type: "platform.report",
    record: {
      requestId: "r-1",
      metrics: {
        durationMs: 3.0123,
        billedDurationMs: 114,
        memorySizeMB: 128,
        maxMemoryUsedMB: 36,
        initDurationMs: 110.1,
      },
      status: "success",
    },
  });
});

test("stream names", () => {
  assert.equal(
    logStreamName(Date.UTC(2026, 0, 31), "$LATEST", "0123456789abcdef0123456789abcdef"),
    "2026/01/31/[$LATEST]0123456789abcdef0123456789abcdef",
  );
});
