import assert from "node:assert/strict";
import { it } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import { diskUse, watchDisk } from "./disk-watch.ts";

const LONGER_THAN_A_LOOK_MS = 11_000;

it("warns once for each share of the disk that is crossed, and anew only after it was well below", async () => {
  const clock = new VirtualClock();
  const warnings: string[] = [];
  let usedShare = 0.5;
  const watch = watchDisk({
    clock,
    use: () => ({ usedShare, availableBytes: 5 * 1024 * 1024 }),
    warn: (message) => warnings.push(message),
  });
  const warnedAt = async (share: number): Promise<string | undefined> => {
    usedShare = share;
    await clock.advance(LONGER_THAN_A_LOOK_MS);
    return warnings
      .splice(0)
      .map((text) => /^\d+ %/.exec(text)?.[0])
      .join();
  };
  const seen: (string | undefined)[] = [];
  for (const share of [0.79, 0.8, 0.85, 0.795, 0.801, 0.9, 0.99, 0.89, 0.9, 0.85, 0.9, 0.7, 0.95]) {
    seen.push(await warnedAt(share));
  }
  assert.deepEqual(seen, ["", "80 %", "", "", "", "90 %", "", "", "", "", "90 %", "", "95 %"]);
  watch[Symbol.dispose]();
  assert.equal(await warnedAt(0.5), "");
  assert.equal(await warnedAt(0.95), "");
});

it("reads a real disk", () => {
  const { usedShare, availableBytes } = diskUse("/");
  assert.ok(usedShare > 0 && usedShare <= 1);
  assert.ok(availableBytes >= 0);
});
