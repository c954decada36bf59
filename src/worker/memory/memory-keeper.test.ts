import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { nextTurn, systemClock } from "../../lib/clock.ts";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import { ServiceError } from "../../wire/errors.ts";
import { MEMORY_READ_MS, SLOT_MB_EXPECTED, WORKER_MEMORY_RESERVE_BYTES } from "../../wire/limits.ts";
import { MemoryKeeper } from "./memory-keeper.ts";
import { MemoryStalls } from "./memory-stalls.ts";
import type { IdleSlot } from "./pressure.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const RESERVE_MIB = WORKER_MEMORY_RESERVE_BYTES / MIB;
/** A control group that never stalls, whatever this host does. */
const group = await mkdtemp(join(tmpdir(), "hearth-keeper-"));
after(() => rm(group, { recursive: true }));
await writeFile(join(group, "memory.pressure"), "");

/** A worker's memory as the test says, in MiB; what is ended gives back what it took, once the test lets it. */
const keeper = (availableMib: number, pool: readonly number[], idle: readonly (readonly [string, number])[]) => {
  const ended: string[] = [];
  const standing = [...pool];
  const slots: IdleSlot[] = idle.map(([slotId, mib]) => ({ slotId, memoryMb: 1_024, memoryBytes: mib * MIB }));
  const state = { availableMib, back: Promise.withResolvers<void>() };
  const clock = new VirtualClock();
  const kept = new MemoryKeeper({
    clock,
    read: () => Promise.resolve({ totalBytes: 16 * GIB, availableBytes: state.availableMib * MIB }),
    stalls: (onStall) => new MemoryStalls(group, clock, onStall),
    pool: {
      get readyBytes() {
        return standing.reduce((sum, mib) => sum + mib, 0) * MIB;
      },
      shed: (bytes) => {
        let shedMib = 0;
        while (shedMib * MIB < bytes) {
          const mib = standing.shift() ?? assert.fail("more is shed than there is");
          shedMib += mib;
          ended.push(`pool ${mib}`);
        }
        return { bytes: shedMib * MIB, done: state.back.promise };
      },
    },
    idle: () => slots,
    end: (slotId) => {
      ended.push(slotId);
      slots.splice(
        slots.findIndex((slot) => slot.slotId === slotId),
        1,
      );
      return state.back.promise;
    },
  });
  return { kept, state, ended, clock, [Symbol.dispose]: () => kept[Symbol.dispose]() };
};

test("short of memory: the pool and then the idle slots end once for one need, until it is back", async () => {
  using made = keeper(
    RESERVE_MIB - 100,
    [8, 8],
    [
      ["a", 60],
      ["b", 60],
      ["c", 60],
    ],
  );
  await made.kept.look();
  const once = ["pool 8", "pool 8", "a", "b"];
  assert.deepEqual(made.ended, once);
  // Nothing of it is back yet, and looking again ends nothing more.
  await made.kept.look();
  assert.deepEqual(made.ended, once);
  made.state.back.resolve();
  await made.state.back.promise;
  made.state.availableMib = RESERVE_MIB + 36;
  await made.kept.look();
  assert.deepEqual(made.ended, once);
  // It came back, and is needed again.
  made.state.availableMib = RESERVE_MIB - 1;
  await made.kept.look();
  assert.deepEqual(made.ended, [...once, "c"]);
});

test("it looks by itself", async () => {
  using made = keeper(RESERVE_MIB, [], [["a", 60]]);
  await made.kept.look();
  assert.deepEqual(made.ended, []);
  made.state.availableMib = RESERVE_MIB - 1;
  await made.clock.advance(MEMORY_READ_MS);
  while (made.ended.length === 0) await nextTurn(systemClock);
  assert.deepEqual(made.ended, ["a"]);
});

test("a new slot: idle ones make room for it and for those that just start, or it is refused and none ends", async () => {
  const expected = SLOT_MB_EXPECTED;
  using made = keeper(
    RESERVE_MIB + expected,
    [],
    [
      ["a", expected],
      ["b", expected],
    ],
  );
  // Before the first reading nothing is known against it.
  made.kept.makeRoom(1_024, GIB);
  await made.kept.look();
  made.kept.makeRoom(1_024, 0);
  assert.deepEqual(made.ended, []);
  made.kept.makeRoom(1_024, expected * MIB);
  assert.deepEqual(made.ended, ["a"]);
  assert.throws(
    () => made.kept.makeRoom(1_024, 3 * expected * MIB),
    (error) =>
      error instanceof ServiceError &&
      error.status === 503 &&
      error.message.startsWith(
        `This worker is short of memory: ${RESERVE_MIB + 2 * expected} of 16384 MB are available`,
      ),
  );
  assert.deepEqual(made.ended, ["a"]);
});

test("the pool is not filled while memory is short", async () => {
  using made = keeper(RESERVE_MIB, [], []);
  assert.equal(made.kept.mayFillPool, true);
  await made.kept.look();
  assert.equal(made.kept.mayFillPool, false);
});
