import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy } from "../../src/cli/deploy.ts";
import { FREEZE_AFTER_IDLE_MS_MAX, SLOTS_MEASURE_MS } from "../../src/wire/limits.ts";
import type { SlotInfo } from "../../src/wire/slot.ts";
import { invoke, zipOf } from "./functions.ts";
import { startHearth } from "./hearth.ts";

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
      assert.ok(keptMib < 16, `${keptMib} of ${mb} MiB are still taken`);
    }
    assert.equal((await invoke(client, name, { mb: 1 })).value, 1);
  });
}
