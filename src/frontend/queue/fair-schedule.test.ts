import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MinHeap } from "../../lib/min-heap.ts";
import { seededRandom } from "../../lib/random.ts";
import { FairSchedule } from "./fair-schedule.ts";
import type { Grant, ScheduleLimits } from "./fair-schedule.ts";

const LIMITS: ScheduleLimits = {
  sharedMax: 128,
  firstsMax: 32,
  claimMax: 16,
  backoffMsMin: 1_000,
  backoffMsMax: 300_000,
  freedMsMin: 20,
};
const SEED = Number(process.env["HEARTH_SEED"] ?? 1);
const RUNS = 100;
/** What a claim, or the settling of an event, takes in the world below. */
const STORE_MS = 3;
const UNLIMITED = Number.POSITIVE_INFINITY;

interface FunctionModel {
  readonly runMs: number;
  readonly reserved: number;
  /** Numbers of the events that wait, in the order they came in. */
  readonly waiting: number[];
  readonly startedAtMs: number[];
  readonly ran: Set<number>;
  /** Its invocations, and of them those that are the queue's; and the most of these that there were. */
  inUse: number;
  running: number;
  most: number;
}

/** A store and a Worker Manager in miniature, on a time of their own: what a schedule is told, and how it is obeyed. */
class World {
  readonly schedule: FairSchedule;
  readonly functions: Map<string, FunctionModel> = new Map();
  nowMs = 0;
  throttles = 0;
  accountMax = UNLIMITED;
  readonly #limits: ScheduleLimits;
  readonly #due: MinHeap<() => void> = new MinHeap();
  #events = 0;
  #wakeMs: number | null = null;

  constructor(seed: number, limits: ScheduleLimits = LIMITS) {
    this.#limits = limits;
    this.schedule = new FairSchedule(limits, seededRandom(seed));
  }

  define(name: string, runMs: number, reserved: number = UNLIMITED): void {
    const nothing = { waiting: [], startedAtMs: [], ran: new Set<number>(), inUse: 0, running: 0, most: 0 };
    this.functions.set(name, { runMs, reserved, ...nothing });
  }

  of(name: string): FunctionModel {
    const found = this.functions.get(name);
    assert.ok(found !== undefined);
    return found;
  }

  enqueue(name: string, count: number): void {
    for (let n = 0; n < count; n += 1) this.of(name).waiting.push((this.#events += 1));
    this.schedule.due(name, this.nowMs, this.nowMs);
    this.#pump();
  }

  after(ms: number, action: () => void): void {
    this.#due.push(this.nowMs + ms, action);
  }

  /** Somebody else's invocation of the function, if there is concurrency for it. */
  outside(name: string, ms: number): void {
    if (this.#reserve(name) !== null) return;
    this.after(ms, () => this.#free(name));
  }

  get accepted(): number {
    return this.#events;
  }

  /** Until nothing is due any more; fails when that takes longer than `untilMs`, or ends there. */
  run(untilMs: number = UNLIMITED): void {
    for (;;) {
      const next = this.#due.peek();
      if (next === null || next.key > untilMs) break;
      this.#due.pop();
      this.nowMs = Math.max(this.nowMs, next.key);
      next.item();
      this.#check();
    }
  }

  #check(): void {
    assert.ok(this.schedule.running <= this.#limits.sharedMax + this.#limits.firstsMax, "too many run");
    for (const { inUse, reserved } of this.functions.values()) assert.ok(inUse <= reserved);
  }

  #reserve(name: string): "function" | "all" | null {
    const model = this.of(name);
    if (model.inUse >= model.reserved) return "function";
    const inUse = [...this.functions.values()].reduce((sum, one) => sum + one.inUse, 0);
    if (inUse >= this.accountMax) return "all";
    model.inUse += 1;
    return null;
  }

  #free(name: string): void {
    this.of(name).inUse -= 1;
    this.schedule.freed(name, this.nowMs);
    this.#pump();
  }

  #pump(): void {
    for (const grant of this.schedule.take(this.nowMs)) this.after(STORE_MS, () => this.#claimed(grant));
    const wakeMs = this.schedule.wakeMs();
    if (wakeMs === null || wakeMs === this.#wakeMs) return;
    this.#wakeMs = wakeMs;
    assert.ok(wakeMs > this.nowMs, "a schedule that wants to be asked again at once would be asked for ever");
    this.after(wakeMs - this.nowMs, () => this.#pump());
  }

  #claimed(grant: Grant): void {
    const model = this.of(grant.name);
    const events = model.waiting.splice(0, grant.count);
    this.schedule.claimed(grant, events.length, model.waiting.length === 0 ? null : 0, this.nowMs);
    for (const event of events) this.#start(grant.name, event);
    this.#pump();
  }

  #start(name: string, event: number): void {
    const model = this.of(name);
    const by = this.#reserve(name);
    if (by === null) {
      model.startedAtMs.push(this.nowMs);
      model.running += 1;
      model.most = Math.max(model.most, model.running);
      this.after(model.runMs, () => {
        model.running -= 1;
        assert.ok(!model.ran.has(event), "an event runs once");
        model.ran.add(event);
        this.#free(name);
        this.schedule.ended(name, this.nowMs);
        this.#pump();
      });
      return;
    }
    this.throttles += 1;
    this.after(STORE_MS, () => {
      model.waiting.unshift(event);
      this.schedule.throttled(name, by, this.nowMs);
      this.#pump();
    });
  }
}

describe("FairSchedule", () => {
  it("starts another function's event at once, however many a slow one has", () => {
    const world = new World(1);
    world.define("slow", 900_000);
    world.define("other", 10);
    world.enqueue("slow", 10_000);
    world.run(60_000);
    assert.equal(world.of("slow").inUse, 64, "half of the places, as long as nobody else wants them");
    world.nowMs = 60_000;
    world.enqueue("other", 1);
    world.run(61_000);
    assert.deepEqual(world.of("other").startedAtMs, [60_000 + STORE_MS]);
  });

  it("starts the first event of every function at once, with the places all taken", () => {
    const world = new World(1);
    for (let n = 0; n < 8; n += 1) {
      world.define(`slow${n}`, 900_000);
      world.enqueue(`slow${n}`, 1_000);
    }
    world.run(1_000);
    assert.ok(world.schedule.running >= 100);
    for (let n = 0; n < LIMITS.firstsMax; n += 1) {
      world.define(`new${n}`, 900_000);
      world.enqueue(`new${n}`, 5);
    }
    world.run(2_000);
    for (let n = 0; n < LIMITS.firstsMax; n += 1) assert.ok(world.of(`new${n}`).inUse >= 1);
  });

  it("divides the places evenly once events have ended", () => {
    const world = new World(1);
    for (const name of ["a", "b", "c"]) world.define(name, 1_000);
    world.enqueue("a", 5_000);
    world.run(2_500);
    world.nowMs = 2_500;
    for (const name of ["b", "c"]) world.enqueue(name, 5_000);
    world.run(10_000);
    const shares = ["a", "b", "c"].map((name) => world.of(name).inUse);
    assert.ok(
      shares.every((share) => share >= 28 && share <= 40),
      `${shares.join(", ")} of ${LIMITS.sharedMax}`,
    );
  });

  it("keeps the one slot of a function with reserved concurrency busy", () => {
    const world = new World(1);
    world.define("f", 100, 1);
    world.enqueue("f", 30);
    world.run();
    const { startedAtMs, ran } = world.of("f");
    assert.equal(ran.size, 30);
    const tookMs = (startedAtMs.at(-1) ?? 0) + 100;
    assert.ok(tookMs <= 30 * (100 + STORE_MS) + LIMITS.backoffMsMin, `${tookMs} ms`);
    assert.ok(world.throttles < 40, `${world.throttles} throttles`);
  });

  it("goes on as soon as somebody else's invocation of the function has ended", () => {
    const world = new World(1);
    world.define("f", 10, 1);
    world.outside("f", 200_000);
    world.enqueue("f", 1);
    world.run();
    const [startedMs] = world.of("f").startedAtMs;
    assert.ok(startedMs !== undefined && startedMs >= 200_000 && startedMs <= 200_100, `started at ${startedMs} ms`);
    assert.ok(world.throttles <= 12, `${world.throttles} throttles: it backs off`);
  });

  it("goes on when the account's concurrency comes free by another function", () => {
    const world = new World(1);
    world.accountMax = 1;
    world.define("busy", 0);
    for (const name of ["a", "b"]) world.define(name, 10);
    world.outside("busy", 100_000);
    world.enqueue("a", 1);
    world.enqueue("b", 1);
    world.run();
    for (const name of ["a", "b"]) assert.ok((world.of(name).startedAtMs[0] ?? 0) <= 100_200, name);
  });

  it("finds more concurrency step by step after a throttle, and forgets functions that have nothing", () => {
    const world = new World(1);
    world.define("f", 100, 40);
    for (let n = 0; n < 39; n += 1) world.outside("f", 5_000);
    world.enqueue("f", 3_000);
    world.run();
    assert.equal(world.of("f").ran.size, 3_000);
    // 40 at once from the 6th second on, with a while to get there.
    assert.ok(world.nowMs <= 5_000 + (3_000 * 100) / 40 + 15_000, `${world.nowMs} ms`);
    assert.deepEqual([world.schedule.size, world.schedule.running, world.schedule.wakeMs()], [0, 0, null]);
  });

  it("whatever comes: all events run, once, within bounds, and nothing is left", () => {
    for (let run = 0; run < RUNS; run += 1) {
      const seed = SEED + run;
      const random = seededRandom(seed);
      const below = (count: number): number => Math.floor(random() * count);
      const limits = { ...LIMITS, sharedMax: 1 + below(20), firstsMax: below(5), claimMax: 1 + below(8) };
      const world = new World(seed, limits);
      if (below(3) === 0) world.accountMax = 1 + below(6);
      const names = Array.from({ length: 1 + below(6) }, (_, at) => `f${at}`);
      for (const name of names) world.define(name, below(300), below(2) === 0 ? 1 + below(3) : UNLIMITED);
      const any = (): string => names[below(names.length)] ?? "f0";
      for (let n = 0; n < 30; n += 1) {
        world.after(below(5_000), () => world.enqueue(any(), 1 + below(20)));
        world.after(below(5_000), () => world.outside(any(), below(3_000)));
      }
      try {
        world.run();
        const ran = names.reduce((sum, name) => sum + world.of(name).ran.size, 0);
        assert.equal(ran, world.accepted);
        assert.deepEqual([world.schedule.size, world.schedule.running], [0, 0]);
        const aloneMax = Math.ceil(limits.sharedMax / 2);
        for (const name of names)
          assert.ok(world.of(name).most <= aloneMax, `${name} had more than half of the places`);
      } catch (error) {
        throw new Error(`HEARTH_SEED=${seed} failed`, { cause: error });
      }
    }
  });
});
