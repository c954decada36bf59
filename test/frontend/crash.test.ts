import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { systemClock } from "../../src/lib/clock.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { ACCOUNT, clientOf, functionInput, temporaryDirectory } from "./harness.ts";

const SERVE = new URL("serve.ts", import.meta.url).pathname;

describe("a Frontend that is killed", () => {
  it("has kept every event it accepted", async () => {
    const directory = await temporaryDirectory();
    const child = spawn(process.execPath, [SERVE, directory], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const [line] = (await once(child.stdout, "data")) as [Buffer];
      const client = clientOf(line.toString().trim());
      await client.send(new lambda.CreateFunctionCommand(await functionInput("f")));
      const accepted = new Set<string | undefined>();
      const input = { FunctionName: "f", InvocationType: "Event", Payload: '{"n":1}' } as const;
      const send = async (): Promise<void> => {
        for (;;) {
          const answer = await client.send(new lambda.InvokeCommand(input));
          accepted.add(answer.$metadata.requestId);
          // In the middle of the others' requests.
          if (accepted.size === 60) child.kill("SIGKILL");
        }
      };
      await Promise.allSettled([send(), send(), send(), send()]);
      client.destroy();
      assert.ok(accepted.size >= 60);
      await using store = openSqliteStore(join(directory, "hearth.db"), systemClock);
      const of = { accountId: ACCOUNT, functionName: "f" };
      const what = { count: 10_000, nowMs: Date.now() + 1_000, leaseMs: 1 };
      const { events: kept } = await store.claim(of, what, { instance: "test", incarnation: "1" });
      const missing = [...accepted].filter((id) => !kept.some(({ eventId }) => eventId === id));
      assert.deepEqual(missing, []);
    } finally {
      child.kill("SIGKILL");
      await rm(directory, { recursive: true });
    }
  });
});
