import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "node:test";
import type { MicroVmExit } from "../vmm/microvm.ts";
import type { BootedMicroVm } from "./booted.ts";
import { MicroVmPool } from "./pool.ts";

const EXIT: MicroVmExit = { cause: "killed", exitCode: null, signal: "SIGKILL", detail: "ended" };

/** Stands in for booted microVMs: the pool only keeps them and ends them. */
const yard = () => {
  const alive = new Set<BootedMicroVm>();
  let boots = 0;
  const boot = (memoryMib: number): Promise<BootedMicroVm> => {
    boots += 1;
    const exited = Promise.withResolvers<MicroVmExit>();
    const kill = (): Promise<MicroVmExit> => {
      alive.delete(booted);
      exited.resolve(EXIT);
      return exited.promise;
    };
    const booted = {
      memoryMib,
      bootMs: 10,
      vm: { exited: exited.promise, kill },
      [Symbol.asyncDispose]: async () => void (await kill()),
    } as unknown as BootedMicroVm;
    alive.add(booted);
    return Promise.resolve(booted);
  };
  return { alive, boot, boots: () => boots };
};

const settled = async (): Promise<void> => {
  for (let turns = 0; turns < 5; turns += 1) await turn();
};

test("a size in demand is kept at the floor, each size for itself", async () => {
  const { boot, alive } = yard();
  await using pool = new MicroVmPool({ boot, floor: 2 });
  const first = await pool.take(192);
  assert.equal(first.hit, false);
  await settled();
  assert.equal(pool.ready, 2);
  assert.equal((await pool.take(192)).hit, true);
  assert.equal((await pool.take(1024)).hit, false);
  await settled();
  assert.equal(pool.ready, 4);
  assert.equal(alive.size, 3 + 4);
});

test("demand raises what is kept: twice what is on its way", async () => {
  const clock = { nowMs: 0 };
  const { boot } = yard();
  await using pool = new MicroVmPool({ boot, floor: 1, nowMs: () => clock.nowMs });
  for (let taken = 0; taken < 2_000; taken += 1) await pool.take(192);
  await settled();
  // 200 a second, about 10 to 20 ms each: λ·W is 2 to 4.
  assert.ok(pool.ready >= 4 && pool.ready <= 8, `${pool.ready} ready`);
});

test("all sizes together stay under the maximum", async () => {
  const { boot } = yard();
  await using pool = new MicroVmPool({ boot, floor: 2, max: 3 });
  for (const memoryMib of [192, 256, 512, 1024]) pool.warm(memoryMib);
  await settled();
  assert.equal(pool.ready, 3);
});

test("a floor of 0 boots nothing ahead", async () => {
  const { boot, boots } = yard();
  await using pool = new MicroVmPool({ boot, floor: 0 });
  pool.warm(192);
  await pool.take(192);
  await settled();
  assert.equal(boots(), 1);
});

test("a microVM that dies in the pool is never given out", async () => {
  const { boot, alive } = yard();
  await using pool = new MicroVmPool({ boot, floor: 1 });
  pool.warm(192);
  await settled();
  const [standing] = alive;
  await standing?.vm.kill("from outside");
  await settled();
  const { booted, hit } = await pool.take(192);
  assert.equal(hit, false);
  assert.notEqual(booted, standing);
});

test("closing ends everything in it, also what is still booting", async () => {
  const { boot, alive } = yard();
  const gate = Promise.withResolvers<void>();
  const pool = new MicroVmPool({ boot: async (memoryMib) => (await gate.promise, boot(memoryMib)), floor: 3 });
  pool.warm(192);
  const closed = pool[Symbol.asyncDispose]();
  gate.resolve();
  await closed;
  await settled();
  assert.equal(alive.size, 0);
});

test("what cannot be booted is told, and does not stop the pool", async () => {
  const errors: unknown[] = [];
  const { boot } = yard();
  let fail = true;
  await using pool = new MicroVmPool({
    boot: (memoryMib) => (fail ? Promise.reject(new Error("no memory")) : boot(memoryMib)),
    floor: 1,
    onError: (error) => errors.push(error),
  });
  pool.warm(192);
  await settled();
  assert.equal(errors.length, 1);
  fail = false;
  await pool.take(192);
  await settled();
  assert.equal(pool.ready, 1);
});
