import { LambdaServiceException } from "@aws-sdk/client-lambda";
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy } from "../../src/cli/deploy.ts";
import { FREEZE_AFTER_IDLE_MS_MAX, SLOTS_MEASURE_MS } from "../../src/wire/limits.ts";
import type { SlotInfo } from "../../src/wire/slot.ts";
import { invoke, zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();
const MIB = 1024 * 1024;

/** Takes memory, all of it written to, and gives it back to its kernel before it returns. */
const GREEDY = `
def handler(event, context):
    block = bytearray(b"x") * (event["mb"] << 20)
    return sum(block[:: 1 << 20]) // ord("x")
`;

/** What the one slot of a function takes of the host, measured now. */
const measured = async (name: string): Promise<SlotInfo> => {
  // Not what was measured before.
  await sleep(SLOTS_MEASURE_MS + 50);
  const slots = (await hearth.slots()).filter((slot) => slot.functionArn.endsWith(`:${name}`));
  assert.equal(slots.length, 1);
  return slots[0] as SlotInfo;
};

for (const { mb, memoryMb } of [
  { mb: 150, memoryMb: 512 },
  { mb: 1_000, memoryMb: 1_536 },
]) {
  test(`${mb} MB that a function has freed are the host's again once it is idle`, async () => {
    const name = `greedy-${mb}`;
    const zip = await zipOf({ "app.py": GREEDY });
    await deploy(client, { name, zip, runtime: "python3.11", handler: "app.handler", memoryMb, timeoutS: 60 });
    assert.equal((await invoke(client, name, { mb: 1 })).value, 1);
    const before = await measured(name);
    for (let n = 0; n < 2; n += 1) {
      const answer = await invoke(client, name, { mb });
      assert.equal(answer.value, mb, JSON.stringify(answer));
      assert.ok(Number(/Max Memory Used: (\d+) MB/.exec(answer.log)?.[1]) >= mb, answer.log);
      await sleep(FREEZE_AFTER_IDLE_MS_MAX);
      const after = await measured(name);
      assert.equal(after.slotId, before.slotId);
      const keptMib = Math.round((after.memoryBytes - before.memoryBytes) / MIB);
      // What its kernel keeps of every page that was ever in use stays: 1/64 of them.
      assert.ok(keptMib < 16 + mb / 64, `${keptMib} of ${mb} MiB are still taken`);
    }
    assert.equal((await invoke(client, name, { mb: 1 })).value, 1);
  });
}

/**
 * Reads one page of each of many regions of 2 MiB: its kernel needs a page table of 4 KiB for each, which counts as the
 * function's, and the host as much again, which does not.
 */
const SPARSE = `
import mmap
NORESERVE = 0x4000
def handler(event, context):
    size = event["regions"] << 21
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE, prot=mmap.PROT_READ)
    return sum(block[at] + 1 for at in range(0, size, 1 << 21))
`;

test("a guest that needs more of the host than it may take ends alone, and it is said why", async () => {
  const zip = await zipOf({ "app.py": SPARSE });
  await deploy(client, {
    name: "sparse",
    zip,
    runtime: "python3.11",
    handler: "app.handler",
    memoryMb: 256,
    timeoutS: 60,
  });
  await deploy(client, {
    name: "other",
    zip: await zipOf({ "app.py": GREEDY }),
    runtime: "python3.11",
    handler: "app.handler",
    memoryMb: 256,
  });
  assert.equal((await invoke(client, "sparse", { regions: 1_000 })).value, 1_000);
  assert.equal((await invoke(client, "other", { mb: 1 })).value, 1);
  const other = await measured("other");
  const refused = await invoke(client, "sparse", { regions: 50_000 }).catch((error: unknown) => error);
  assert.ok(refused instanceof LambdaServiceException, JSON.stringify(refused));
  assert.equal(refused.name, "ServiceException");
  const why =
    "The host's kernel killed a part of it for want of memory: it may take 384 MiB of the host's, and had taken 384";
  assert.equal(refused.message, `The microVM ended before the invocation did: ${why}`);
  const lines = await eventually("its log says so", async () => {
    const found = await hearth.logOf("sparse");
    return found.some((line) => line.includes(why)) ? found : null;
  });
  assert.ok(
    lines.some((line) => /^REPORT .*Status: error\tError Type: Sandbox\.Failure/.test(line)),
    lines.join("\n"),
  );
  assert.equal((await invoke(client, "other", { mb: 1 })).value, 1);
  assert.equal((await measured("other")).slotId, other.slotId);
  assert.equal((await invoke(client, "sparse", { regions: 1_000 })).value, 1_000);
});
