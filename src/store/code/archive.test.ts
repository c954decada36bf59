import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock } from "../../lib/clock.ts";
import { readArchive } from "./archive.ts";
import { openCodeStore } from "./file-code-store.ts";
import { HOSTILE_SHAPES } from "./hostile-zips.ts";
import { unpack } from "./unpack.ts";

const US_PER_MS = 1_000;
/** A shape's size is doubled until its cost can be told from the noise. */
const COST_MS_MIN = 10;
const SIZE_MAX = 128;
const TRIES = 2;
/** Four times the bytes may cost so many times as much, for caches, garbage collection, a busy host. Quadratic is 4. */
const GROWTH_MAX = 2;
/** What a turn of the loop may take of its CPU, whoever causes it. */
const TURN_MS_MAX = 50;

const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / US_PER_MS;
};

/** CPU time of reading and unpacking an archive on this thread: the least of some tries. */
const costMs = async (zip: Buffer, bad: boolean): Promise<number> => {
  let least = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < TRIES; tries += 1) {
    const place = await mkdtemp(join(tmpdir(), "hearth-archive-"));
    try {
      const tree = join(place, "tree");
      await mkdir(tree);
      const beganMs = cpuMs();
      const read = readArchive(zip).then((archive) => unpack(archive, tree));
      if (bad) await assert.rejects(read, { name: "InvalidParameterValueException" });
      else await read;
      least = Math.min(least, cpuMs() - beganMs);
    } finally {
      await rm(place, { recursive: true });
    }
  }
  return least;
};

/** Measures the turns of this thread's loop, in CPU time, so that a busy host does not count. */
class Turns {
  #ended = false;
  #longestMs = 0;
  readonly #watching: Promise<void>;

  constructor() {
    this.#watching = this.#watch();
  }

  async end(): Promise<number> {
    this.#ended = true;
    await this.#watching;
    return this.#longestMs;
  }

  async #watch(): Promise<void> {
    // What was done before is not ours.
    await turn();
    while (!this.#ended) {
      const beganMs = cpuMs();
      await turn();
      this.#longestMs = Math.max(this.#longestMs, cpuMs() - beganMs);
    }
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("archives of strangers", () => {
  for (const [shape, { make, bad }] of Object.entries(HOSTILE_SHAPES)) {
    it(`cost as much as they are large: ${shape}`, async (t) => {
      let size = 4;
      let costs = await costMs(make(size), bad);
      while (costs < COST_MS_MIN && size < SIZE_MAX) {
        size *= 2;
        costs = await costMs(make(size), bad);
      }
      const [zip, larger] = [make(size), make(4 * size)];
      const bytes = larger.length / zip.length;
      let growth = Number.POSITIVE_INFINITY;
      // Garbage collection and a busy host fall upon one measurement or another; a cost that is quadratic is so in each.
      for (let tries = 0; tries <= TRIES && growth >= GROWTH_MAX * bytes; tries += 1) {
        if (tries > 0) costs = await costMs(zip, bad);
        growth = (await costMs(larger, bad)) / Math.max(costs, COST_MS_MIN / 2);
        t.diagnostic(`${costs.toFixed(1)} ms; ${growth.toFixed(1)} times that for ${bytes.toFixed(1)} times the bytes`);
      }
      assert.ok(growth < GROWTH_MAX * bytes, `${growth.toFixed(1)} times the CPU time for ${bytes.toFixed(1)} times`);
    });
  }

  it("leave the loop to others while they are stored", async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "hearth-archive-"));
    try {
      const store = await openCodeStore(directory, systemClock);
      for (const [shape, { make }] of Object.entries(HOSTILE_SHAPES)) {
        const zip = make(8);
        let longestMs = Number.POSITIVE_INFINITY;
        // The kernel may count another's time as ours; it does not do so every time.
        for (let tries = 0; tries <= TRIES && longestMs > TURN_MS_MAX; tries += 1) {
          const turns = new Turns();
          await store.put(zip).catch(() => undefined);
          longestMs = await turns.end();
        }
        t.diagnostic(`${shape}: longest turn ${longestMs.toFixed(1)} ms of CPU time`);
        assert.ok(longestMs < TURN_MS_MAX, `${shape}: a turn of ${longestMs.toFixed(1)} ms`);
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
