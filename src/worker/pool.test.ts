import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import type { MicroVmExit } from "../vmm/microvm.ts";
import { AFTER_ANSWER_MS, POOL_KEEP_MS, POOL_SHRINK_MS } from "../wire/limits.ts";
import type { BootedMicroVm } from "./booted.ts";
import { MicroVmPool } from "./pool.ts";
import type { PoolOptions, PoolRequest, Taken } from "./pool.ts";
import type { ShelfKey } from "./shelf.ts";

const EXIT: MicroVmExit = { cause: "killed", exitCode: null, error: null, signal: "SIGKILL", detail: "ended" };
const MIB = 1024 * 1024;

/** Stands in for microVMs: the pool only keeps them and ends them. */
const yard = () => {
  const alive = new Set<BootedMicroVm>();
  const made: string[] = [];
  const one = (memoryMib: number, runtime: string | null): BootedMicroVm => {
    const exited = Promise.withResolvers<MicroVmExit>();
    const kill = (): Promise<MicroVmExit> => {
      alive.delete(booted);
      exited.resolve(EXIT);
      return exited.promise;
    };
    const booted = {
      memoryMib,
      runtime,
      vm: {
        exited: exited.promise,
        kill,
        stats: () => Promise.resolve({ memoryBytes: (runtime === null ? 8 : 64) * MIB }),
      },
      [Symbol.asyncDispose]: async () => void (await kill()),
    } as unknown as BootedMicroVm;
    alive.add(booted);
    return booted;
  };
  const make = ({ memoryMib, runtime }: ShelfKey): Promise<BootedMicroVm> => {
    made.push(`made ${memoryMib} ${runtime ?? "bare"}`);
    return Promise.resolve(one(memoryMib, runtime));
  };
  const boot = (memoryMib: number, images: readonly string[]): Promise<BootedMicroVm> => {
    made.push(`booted ${memoryMib} ${images.join(" ")}`);
    return Promise.resolve(one(memoryMib, null));
  };
  const clock = new VirtualClock();
  const pool = (options: Partial<PoolOptions> = {}): MicroVmPool =>
    new MicroVmPool({ make, boot, clock, makesMax: 2, ...options });
  /** Time for what was put off, and what comes of it. */
  const idle = (): Promise<void> => clock.advance(AFTER_ANSWER_MS);
  /** Takes one and is done with it at once, so that the pool refills. */
  const use = async (from: MicroVmPool, request: PoolRequest): Promise<Taken> => {
    const taken = await from.take(request);
    taken.settled();
    await idle();
    return taken;
  };
  return { alive, made, make, clock, pool, idle, use };
};

const ofSize = (memoryMib: number): PoolRequest => ({ memoryMib, runtime: null, images: ["code"] });
const ofRuntime = (runtime: string, memoryMib = 192): PoolRequest => ({ memoryMib, runtime, images: ["code"] });

test("what is in demand is kept at the floor, each size and runtime for itself", async () => {
  const { alive, pool, use } = yard();
  await using kept = pool({ floor: 2 });
  assert.equal((await use(kept, ofSize(192))).result, "none");
  assert.deepEqual(kept.ready, { bare: 2, prepared: 0 });
  assert.equal((await use(kept, ofSize(192))).result, "bare");
  assert.equal((await use(kept, ofSize(1024))).result, "none");
  // Nothing of its own is there yet, but a booted microVM of its size.
  assert.equal((await use(kept, ofRuntime("a"))).result, "bare");
  const { booted, result } = await use(kept, ofRuntime("a"));
  assert.equal(result, "prepared");
  assert.equal(booted.runtime, "a");
  assert.equal((await use(kept, ofRuntime("b", 1024))).result, "bare");
  assert.deepEqual(kept.ready, { bare: 4, prepared: 4 });
  assert.equal(alive.size, 8 + 6);
});

test("nothing is made while somebody who took one is not served yet", async () => {
  const { made, pool, idle } = yard();
  await using kept = pool({ floor: 1 });
  const first = await kept.take(ofSize(192));
  const second = await kept.take(ofSize(192));
  await idle();
  assert.deepEqual(made, ["booted 192 code", "booted 192 code"]);
  first.settled();
  first.settled();
  await idle();
  assert.deepEqual(kept.ready, { bare: 1, prepared: 0 });
  second.settled();
});

test("who finds nothing ready gets what is on its way", async () => {
  const { make, made, pool, idle } = yard();
  const gate = Promise.withResolvers<void>();
  let isWanted = false;
  const slowly = async (key: ShelfKey, wanted: Promise<void>): Promise<BootedMicroVm> => {
    void wanted.then(() => (isWanted = true));
    await gate.promise;
    return make(key);
  };
  await using kept = pool({ floor: 1, make: slowly });
  kept.expect({ memoryMib: 192, runtime: "a" });
  await idle();
  assert.equal(isWanted, false);
  const first = kept.take(ofRuntime("a"));
  await idle();
  assert.equal(isWanted, true);
  // That one has its taker already.
  assert.equal((await kept.take(ofRuntime("a"))).result, "none");
  gate.resolve();
  assert.equal((await first).result, "prepared");
  assert.deepEqual(made, ["booted 192 code", "made 192 a"]);
});

test("demand raises what is kept, and it shrinks and goes when the demand is over", async () => {
  const { clock, make, pool, use } = yard();
  const slowly = async (key: ShelfKey): Promise<BootedMicroVm> => {
    clock.pass(100);
    return make(key);
  };
  await using kept = pool({ floor: 1, make: slowly });
  for (let taken = 0; taken < 120; taken += 1) await use(kept, ofSize(192));
  // One every 100 ms, and each takes as long: λ·W is about 1.
  const { bare } = kept.ready;
  assert.ok(bare > 1 && bare < 5, `${bare} ready`);
  clock.pass(POOL_SHRINK_MS + 1);
  kept.sweep();
  assert.equal(kept.ready.bare, 1);
  clock.pass(POOL_KEEP_MS + 1);
  kept.sweep();
  assert.equal(kept.ready.bare, 0);
});

test("all together stay under the maximum, and what is asked for pushes out what is not", async () => {
  const { clock, pool, idle, use } = yard();
  await using kept = pool({ floor: 2, max: 3 });
  for (const memoryMib of [192, 256, 512]) {
    clock.pass(1);
    kept.expect({ memoryMib, runtime: null });
    await idle();
  }
  assert.equal(kept.ready.bare, 3);
  assert.equal((await use(kept, ofSize(512))).result, "bare");
  assert.equal((await use(kept, ofSize(512))).result, "bare");
});

test("memory bounds it too", async () => {
  const { pool, idle } = yard();
  await using kept = pool({ floor: 8, memoryBytesMax: 200 * MIB });
  kept.expect({ memoryMib: 192, runtime: "a" });
  await idle();
  assert.deepEqual(kept.ready, { bare: 0, prepared: 3 });
});

test("when memory is short those that take most go first", async () => {
  const { pool, idle } = yard();
  await using kept = pool({ floor: 2 });
  kept.expect({ memoryMib: 192, runtime: null });
  kept.expect({ memoryMib: 192, runtime: "a" });
  await idle();
  assert.equal(kept.readyBytes, 2 * (8 + 64) * MIB);
  // As few as will do: the bare ones give 8 MiB each, the prepared ones 64.
  assert.equal(kept.shed(130 * MIB).bytes, 136 * MIB);
  assert.deepEqual(kept.ready, { bare: 1, prepared: 0 });
  assert.equal(kept.shed(Number.MAX_SAFE_INTEGER).bytes, 8 * MIB);
  assert.equal(kept.readyBytes, 0);
});

test("while memory is short nothing is made ahead, and what is asked for still is", async () => {
  const { made, pool, idle, use } = yard();
  let mayMake = false;
  await using kept = pool({ floor: 2, mayMake: () => mayMake });
  kept.expect({ memoryMib: 192, runtime: null });
  assert.equal((await use(kept, ofSize(192))).result, "none");
  assert.deepEqual(made, ["booted 192 code"]);
  mayMake = true;
  kept.sweep();
  await idle();
  assert.deepEqual(kept.ready, { bare: 2, prepared: 0 });
});

test("a floor of 0 makes nothing ahead", async () => {
  const { made, pool, use } = yard();
  await using kept = pool({ floor: 0 });
  kept.expect({ memoryMib: 192, runtime: null });
  await use(kept, ofSize(192));
  assert.deepEqual(made, ["booted 192 code"]);
});

test("a microVM that dies in the pool is never given out", async () => {
  const { alive, pool, idle } = yard();
  await using kept = pool({ floor: 1 });
  kept.expect({ memoryMib: 192, runtime: null });
  await idle();
  const [standing] = alive;
  await standing?.vm.kill("from outside");
  await idle();
  const { booted, result } = await kept.take(ofSize(192));
  assert.equal(result, "none");
  assert.notEqual(booted, standing);
});

test("closing ends everything in it, also what is still being made", async () => {
  const { alive, make, pool, idle } = yard();
  const gate = Promise.withResolvers<void>();
  const kept = pool({ floor: 3, make: async (key) => (await gate.promise, make(key)) });
  kept.expect({ memoryMib: 192, runtime: null });
  const closed = kept[Symbol.asyncDispose]();
  gate.resolve();
  await closed;
  await idle();
  assert.equal(alive.size, 0);
});

test("what cannot be made is told, and does not stop the pool", async () => {
  const errors: unknown[] = [];
  const { make, pool, use } = yard();
  let fail = true;
  await using kept = pool({
    floor: 1,
    make: (key) => (fail ? Promise.reject(new Error("no memory")) : make(key)),
    onError: (error) => errors.push(error),
  });
  kept.expect({ memoryMib: 192, runtime: "a" });
  // Whoever waited for it is served all the same.
  assert.equal((await kept.take(ofRuntime("a"))).result, "none");
  assert.equal(errors.length, 1);
  fail = false;
  await use(kept, ofRuntime("a"));
  assert.equal(kept.ready.prepared, 1);
});
