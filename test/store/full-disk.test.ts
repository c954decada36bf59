import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { functionInput, startHarness } from "../frontend/harness.ts";
import { zipOf } from "../functional/functions.ts";

const DISK_MB = 24;
const CODE_BYTES = 1_000_000;
/** Less than the share of a small disk below which it counts as nearly full. */
const LEFT_BYTES = 600_000;

it("a deleted function's code is gone at once when the disk is nearly full, and only then", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "hearth-full-"));
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MB}m`, "none", directory]).status !== 0) {
    rmSync(directory, { recursive: true });
    return t.skip("a file system of its own cannot be mounted here");
  }
  try {
    await using harness = await startHarness({ directory });
    const { client } = harness;
    const names = (): string[] => readdirSync(join(directory, "code")).filter((name) => name.endsWith(".zip"));
    for (const name of ["early", "late", "stays"]) {
      const Code = { ZipFile: await zipOf({ "index.js": randomBytes(CODE_BYTES) }) };
      await client.send(new lambda.CreateFunctionCommand({ ...(await functionInput(name)), Code }));
    }
    await client.send(new lambda.DeleteFunctionCommand({ FunctionName: "early" }));
    assert.equal(names().length, 3, "with room left, what was deleted stays for a while");
    const { bavail, bsize } = statfsSync(directory);
    writeFileSync(join(directory, "filler"), Buffer.alloc(bavail * bsize - LEFT_BYTES));
    await client.send(new lambda.DeleteFunctionCommand({ FunctionName: "late" }));
    assert.equal(names().length, 1);
    const after = statfsSync(directory);
    assert.ok(after.bavail * after.bsize > LEFT_BYTES + 2 * CODE_BYTES, "its room is free");
    await client.send(new lambda.InvokeCommand({ FunctionName: "stays", Payload: "1" }));
  } finally {
    execFileSync("umount", ["--lazy", directory]);
    rmSync(directory, { recursive: true, force: true });
  }
});
