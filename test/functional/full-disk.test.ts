/** A data directory on a small disk, and functions that fill it: what others, the store and the operator can still do. */
import assert from "node:assert/strict";
import { existsSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DeleteFunctionCommand, InvokeCommand, LambdaServiceException } from "@aws-sdk/client-lambda";
import { getControl } from "../../src/daemon/control.ts";
import { fillDisk } from "./filled.ts";
import { deployProbe, invoke } from "./functions.ts";
import { eventually, TestHearth } from "./hearth.ts";
import { SmallDisk } from "./small-disk.ts";

const MIB = 1024 * 1024;
const DISK_MB = 2_000;
const UNMOUNTABLE = "mounting a small disk needs root, mkfs.ext4 and a loop device";

const availableBytes = (path: string): number => {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
};

test("functions that fill their /tmp get errors, and the data directory keeps its last bytes", async (t) => {
  using disk = SmallDisk.mount(DISK_MB);
  if (disk === null) return t.skip(UNMOUNTABLE);
  await using hearth = new TestHearth(join(disk.path, "data"), ["--pool", "0"]);
  await hearth.start();
  const client = hearth.client();
  await deployProbe(client, "hog", { memoryMb: 512, timeoutS: 60 });
  await deployProbe(client, "other");
  await Promise.all([invoke(client, "hog", {}), invoke(client, "other", {})]);
  let least = Number.POSITIVE_INFINITY;
  const watch = setInterval(() => (least = Math.min(least, availableBytes(disk.path))), 5);
  const filled = await Promise.all(
    [1, 2, 3, 4].map(() => invoke(client, "hog", { op: "hold", mb: 500 }).catch(() => null)),
  );
  clearInterval(watch);
  assert.ok(least > 0, "the disk was never full");
  const ended = filled.map((answer) => answer?.value as { readonly code: string | null } | undefined);
  assert.ok(
    ended.some((value) => value?.code === "EIO"),
    JSON.stringify(ended),
  );
  assert.ok((await hearth.logOf("hog")).some((text) => /^\/tmp takes no more: .*--scratch/.test(text)));
  // The service goes on beside it.
  // What idle slots took is given back in a moment, and until then a new one is a 503.
  const beside = await eventually("another function runs", () => invoke(client, "other").catch(() => null));
  assert.equal(beside.error, undefined);
  await deployProbe(client, "new");
  const accepted = await client.send(new InvokeCommand({ FunctionName: "other", InvocationType: "Event" }));
  assert.equal(accepted.StatusCode, 202);
});

test("a slot whose /tmp has no room is refused, with the limit and what to do", async (t) => {
  using disk = SmallDisk.mount(DISK_MB);
  if (disk === null) return t.skip(UNMOUNTABLE);
  await using hearth = new TestHearth(join(disk.path, "data"), ["--pool", "0"]);
  await hearth.start();
  const client = hearth.client();
  await deployProbe(client, "f");
  const file = join(disk.path, "somebody-else");
  writeFileSync(file, Buffer.alloc(1_400 * MIB));
  const refused = await invoke(client, "f").catch((error: unknown) => error);
  assert.ok(refused instanceof LambdaServiceException, JSON.stringify(refused));
  assert.equal(refused.$metadata.httpStatusCode, 503);
  assert.match(refused.message, /\/tmp of this function may take 512 MB, and \d+ MB are left .* \(`--scratch`\)/);
  writeFileSync(file, "");
  assert.equal((await invoke(client, "f")).error, undefined);
});

test("a budget of its own holds, and idle slots give back what theirs takes", async (t) => {
  using disk = SmallDisk.mount(DISK_MB);
  if (disk === null) return t.skip(UNMOUNTABLE);
  await using hearth = new TestHearth(join(disk.path, "data"), ["--pool", "0", "--scratch", "600"]);
  await hearth.start();
  const client = hearth.client();
  await deployProbe(client, "keeps", { memoryMb: 512, timeoutS: 60 });
  assert.deepEqual((await invoke(client, "keeps", { op: "hold", mb: 400 })).value, { written: 400, code: null });
  await eventually("what it takes is shown", async () =>
    (await hearth.measuredSlots()).some(({ scratchBytes }) => scratchBytes > 400 * MIB) ? true : null,
  );
  await deployProbe(client, "next", { memoryMb: 256 });
  // The first try may find the idle one still going.
  const answer = await eventually("the idle slot gives way", () => invoke(client, "next").catch(() => null));
  assert.equal(answer.error, undefined);
  assert.ok((await hearth.slots()).every(({ functionArn }) => !functionArn.endsWith(":keeps")));
});

/** Room for the `/tmp` of one slot, and for what is kept free of it. */
const LEAST_DISK_MB = 700;
const EVENT_MS = 8_000;

test("somebody else fills the disk: what ran does not run again, and the service goes on once there is room", async (t) => {
  using disk = SmallDisk.mount(LEAST_DISK_MB);
  if (disk === null) return t.skip(UNMOUNTABLE);
  await using hearth = new TestHearth(join(disk.path, "data"), ["--pool", "0"]);
  await hearth.start();
  const client = hearth.client();
  const queue = async (): Promise<{ readonly waiting: number; readonly running: number }> =>
    JSON.parse(await getControl(hearth.dataDir, "/queue")) as { readonly waiting: number; readonly running: number };
  const send = (by = client): Promise<unknown> =>
    by.send(
      new InvokeCommand({
        FunctionName: "works",
        InvocationType: "Event",
        Payload: Buffer.from(JSON.stringify({ op: "sleep", ms: EVENT_MS })),
      }),
    );
  for (const name of ["works", "goes"]) await deployProbe(client, name);
  await invoke(client, "works");
  const reserve = join(hearth.dataDir, "hearth.reserve");
  await eventually("a reserve is set aside", async () =>
    existsSync(reserve) && statSync(reserve).size === 16 * MIB ? true : null,
  );
  await send();
  await eventually("the event runs", async () => ((await queue()).running === 1 ? true : null));
  const filler = join(disk.path, "somebody-else");
  fillDisk(filler);
  assert.equal((await queue()).running, 1, "the event still runs");
  await assert.rejects(send(), { name: "ServiceUnavailableException", message: /no space left on the disk/ });
  await eventually("the event is settled", async () => ((await queue()).waiting === 0 ? true : null));
  await client.send(new DeleteFunctionCommand({ FunctionName: "goes" }));
  await hearth.stop("SIGKILL");
  rmSync(filler);
  await hearth.start();
  assert.equal((await queue()).waiting, 0, "nothing begins again");
  await assert.rejects(invoke(hearth.client(), "goes"), { name: "ResourceNotFoundException" });
  await send(hearth.client());
  await eventually("what is accepted runs", async () => ((await queue()).waiting === 0 ? true : null));
});
