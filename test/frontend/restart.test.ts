import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { systemClock } from "../../src/lib/clock.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite.ts";
import type { FunctionRecord } from "../../src/store/store.ts";
import { ACCOUNT, functionInput, startHarness, temporaryDirectory } from "./harness.ts";

describe("a Frontend that starts again", () => {
  it("ends what the last one left half done", async () => {
    const directory = await temporaryDirectory();
    try {
      {
        await using first = await startHarness({ directory });
        for (const name of ["pending", "updating", "lost"]) {
          await first.client.send(new lambda.CreateFunctionCommand(await functionInput(name)));
        }
      }
      // As a crash between the answer and the settling leaves them.
      const store = openSqliteStore(join(directory, "hearth.db"), systemClock);
      const leave = async (name: string, changes: Partial<FunctionRecord>): Promise<void> => {
        const record = await store.getFunction(ACCOUNT, name, "$LATEST");
        assert.ok(record !== null);
        assert.equal(await store.updateFunction({ ...record, ...changes }, record.revisionId), true);
      };
      await leave("pending", { state: "Pending", lastUpdateStatus: null });
      await leave("updating", { lastUpdateStatus: "InProgress" });
      const code = { digest: "0".repeat(64), sha256Base64: "", bytes: 0 };
      await leave("lost", { state: "Pending", lastUpdateStatus: null, code });
      await store[Symbol.asyncDispose]();

      await using second = await startHarness({ directory });
      const state = async (FunctionName: string): Promise<readonly unknown[]> => {
        const found = await second.client.send(new lambda.GetFunctionConfigurationCommand({ FunctionName }));
        return [found.State, found.LastUpdateStatus, found.StateReasonCode];
      };
      assert.deepEqual(await state("pending"), ["Active", "Successful", undefined]);
      assert.deepEqual(await state("updating"), ["Active", "Successful", undefined]);
      assert.deepEqual((await state("lost")).toSpliced(1, 1), ["Failed", "InternalError"]);
      await assert.rejects(second.client.send(new lambda.InvokeCommand({ FunctionName: "lost" })), {
        name: "ResourceConflictException",
        message: /The function is currently in the following state: Failed$/,
      });
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
