import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as lambda from "@aws-sdk/client-lambda";
import { TestHearth } from "../functional/hearth.ts";
import { FIXTURE_NAMES, unpackFixture } from "./directories.ts";

const WAIT_MS = 200;
const QUEUE_MS_MAX = 60_000;
/** Functions with a slot of their own; what they answer tells whose code it is. */
const INVOKED = new Set(["plain", "versions"]);
/** However busy this machine is. */
const TIMEOUT_S = 120;

const sorted = (configurations: readonly lambda.FunctionConfiguration[]): lambda.FunctionConfiguration[] =>
  configurations.toSorted((a, b) => String(a.Version).localeCompare(String(b.Version)));

/** What belongs to the function, and not to the build of a runtime. */
const comparable = (configuration: lambda.FunctionConfiguration): unknown =>
  JSON.parse(JSON.stringify({ ...configuration, RuntimeVersionConfig: undefined }));

describe("data directories of older versions", () => {
  for (const name of FIXTURE_NAMES) {
    it(`lose nothing: ${name}`, async () => {
      using old = unpackFixture(name);
      await using hearth = new TestHearth(old.path, ["--pool", "0"]);
      await hearth.start();
      const client = hearth.client();
      for (const { configurations, tags, reserved, codeText } of old.expected.functions) {
        const FunctionName = configurations[0]?.FunctionName ?? "";
        const { Versions = [] } = await client.send(new lambda.ListVersionsByFunctionCommand({ FunctionName }));
        assert.deepEqual(sorted(Versions).map(comparable), sorted(configurations).map(comparable));
        const { Tags = {}, Concurrency } = await client.send(new lambda.GetFunctionCommand({ FunctionName }));
        assert.deepEqual(Tags, tags);
        assert.equal(Concurrency?.ReservedConcurrentExecutions ?? null, reserved);
        if (!INVOKED.has(FunctionName)) continue;
        await client.send(new lambda.UpdateFunctionConfigurationCommand({ FunctionName, Timeout: TIMEOUT_S }));
        const { Payload } = await client.send(new lambda.InvokeCommand({ FunctionName, Payload: "1" }));
        const variables = configurations.find(({ Version }) => Version === "$LATEST")?.Environment?.Variables;
        const answer: unknown = JSON.parse(Buffer.from(Payload ?? []).toString());
        assert.deepEqual(answer, { code: codeText, event: 1, colour: variables?.["COLOUR"] ?? null });
      }
      // What was queued runs as soon as it may.
      await client.send(new lambda.DeleteFunctionConcurrencyCommand({ FunctionName: "queued" }));
      const waiting = new Set(old.expected.events.map(({ requestId }) => requestId));
      for (let waitedMs = 0; waiting.size > 0 && waitedMs < QUEUE_MS_MAX; waitedMs += WAIT_MS) {
        await sleep(WAIT_MS);
        const log = readdirSync(join(old.path, "logs"), { recursive: true, withFileTypes: true })
          .filter((file) => file.isFile())
          .map((file) => readFileSync(join(file.parentPath, file.name), "utf8"))
          .join("");
        for (const id of waiting) if (log.includes(`REPORT RequestId: ${id}`)) waiting.delete(id);
      }
      assert.deepEqual([...waiting], []);
      // The next number of a function that was deleted and made again.
      const published = await client.send(new lambda.PublishVersionCommand({ FunctionName: "again" }));
      assert.equal(published.Version, "2");
      await hearth.stop();
      assert.deepEqual(
        readdirSync(join(old.path, "code")).filter((file) => file.startsWith("making-")),
        [],
      );
      const copies = readdirSync(join(old.path, "trash")).filter((file) => file.startsWith("hearth.db"));
      assert.deepEqual(copies, [name.startsWith("3100ca5") ? "hearth.db.schema-1" : "hearth.db.schema-2"]);
    });
  }
});
