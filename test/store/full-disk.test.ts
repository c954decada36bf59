import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { functionInput, startHarness } from "../frontend/harness.ts";
import { fillDisk } from "../functional/filled.ts";
import { zipOf } from "../functional/functions.ts";
import { eventually } from "../functional/hearth.ts";

const DISK_MB = 24;
const CODE_BYTES = 1_000_000;
/** Less than the share of a small disk below which it counts as nearly full. */
const LEFT_BYTES = 600_000;
const EVENTS = 8;
const FULL = { name: "ServiceUnavailableException", message: /no space left on the disk of Hearth's data directory/ };

/** A file system of its own in memory; null where none can be mounted. */
const mountDisk = (): (Disposable & { readonly directory: string }) | null => {
  const directory = mkdtempSync(join(tmpdir(), "hearth-full-"));
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MB}m`, "none", directory]).status !== 0) {
    rmSync(directory, { recursive: true });
    return null;
  }
  return {
    directory,
    [Symbol.dispose]: () => {
      execFileSync("umount", ["--lazy", directory]);
      rmSync(directory, { recursive: true, force: true });
    },
  };
};

const UNMOUNTABLE = "a file system of its own cannot be mounted here";

it("a deleted function's code is gone at once when the disk is nearly full, and only then", async (t) => {
  using disk = mountDisk();
  if (disk === null) return t.skip(UNMOUNTABLE);
  const { directory } = disk;
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
});

/** A sixteenth of a small disk. */
const RESERVE_BYTES = (DISK_MB * 1024 * 1024) / 16;

it("on a disk filled by somebody else deletions and events that ran go on, and the rest once there is room", async (t) => {
  using disk = mountDisk();
  if (disk === null) return t.skip(UNMOUNTABLE);
  const { directory } = disk;
  await using harness = await startHarness({ directory });
  const { client, store, echo } = harness;
  const reserve = join(directory, "hearth.reserve");
  const isReserved = async (): Promise<true | null> =>
    existsSync(reserve) && statSync(reserve).size === RESERVE_BYTES ? true : null;
  const event = (FunctionName: string, asked: object): Promise<lambda.InvokeCommandOutput> =>
    client.send(
      new lambda.InvokeCommand({ FunctionName, InvocationType: "Event", Payload: Buffer.from(JSON.stringify(asked)) }),
    );
  for (const name of ["early", "late", "stays"]) {
    await client.send(new lambda.CreateFunctionCommand(await functionInput(name)));
  }
  await eventually("the reserve is set aside", isReserved);
  for (let n = 0; n < EVENTS; n += 1) await event("stays", { do: "hold" });
  await eventually("all events run", async () => (echo.invoked.length === EVENTS ? true : null));
  const filler = join(directory, "filler");
  fillDisk(filler);
  await assert.rejects(event("stays", {}), FULL);
  echo.letGo();
  await eventually("they are settled", async () => ((await store.backlog()).waiting === 0 ? true : null));
  for (const FunctionName of ["early", "late"]) {
    // Whatever the last deletion freed, somebody else takes.
    await client.send(new lambda.DeleteFunctionCommand({ FunctionName }));
    fillDisk(join(directory, `filler-${FunctionName}`));
    await assert.rejects(client.send(new lambda.GetFunctionCommand({ FunctionName })), {
      name: "ResourceNotFoundException",
    });
  }
  await assert.rejects(event("stays", {}), FULL);
  await assert.rejects(client.send(new lambda.CreateFunctionCommand(await functionInput("new"))), FULL);
  await client.send(new lambda.InvokeCommand({ FunctionName: "stays", Payload: "1" }));
  assert.equal(echo.invoked.length, EVENTS + 1, "no event ran twice");
  for (const name of ["filler", "filler-early", "filler-late"]) rmSync(join(directory, name));
  await eventually("the reserve is set aside again", isReserved);
  await eventually("events are accepted", () => event("stays", {}).catch(() => null));
  await client.send(new lambda.CreateFunctionCommand(await functionInput("new")));
  await eventually("they run", async () => ((await store.backlog()).waiting === 0 ? true : null));
});
