import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import type { Clock } from "../lib/clock.ts";
import { TurnMeter } from "../lib/turn-meter.ts";
import type { LoopClock } from "../lib/turn-meter.ts";
import { GuestShareError, GuestTurns } from "./guest-turns.ts";
import { GUEST_SHARE_WINDOW_MS, GUEST_TURN_MS_MAX } from "./limits.ts";

/** A loop whose work is what a test says, and a guest and others in it. */
class TestLoop implements LoopClock {
  iteration = 0;
  iterationBeganUs = 0;
  readonly failures: unknown[] = [];
  readonly guest: GuestTurns;
  readonly #meter: TurnMeter = new TurnMeter(this);
  #nowMs = 0;

  constructor() {
    const clock: Clock = { ...systemClock, monotonicMs: () => this.#nowMs };
    const onFailure = (error: unknown): void => void this.failures.push(error);
    this.guest = new GuestTurns({ id: "vm-1", clock, turns: this.#meter, onFailure });
  }

  cpuUs(): number {
    return this.#nowMs * 1000;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  /** One iteration: a turn of the guest, then one for a request. */
  turn(guestMs: number, requestMs: number): void {
    this.iteration += 1;
    this.iterationBeganUs = this.cpuUs();
    this.#meter.begin({ kind: "timer", name: "" });
    this.guest.run(() => (this.#nowMs += guestMs));
    this.#meter.run({ kind: "request", name: "Invoke" }, () => (this.#nowMs += requestMs));
  }
}

const isShareError = (error: unknown, reason: RegExp): boolean =>
  error instanceof GuestShareError && reason.test(error.message);

test("a guest with many turns, each of them short, loses its microVM once its share is used up, and once", () => {
  const loop = new TestLoop();
  const [guestMs, requestMs] = [8, 1];
  while (loop.failures.length === 0 && loop.monotonicMs() < 3 * GUEST_SHARE_WINDOW_MS) loop.turn(guestMs, requestMs);
  assert.ok(isShareError(loop.failures[0], /: 89 % of its time for 10 s while others waited; 75 % may be$/));
  for (let n = 0; n < GUEST_SHARE_WINDOW_MS; n += 1) loop.turn(guestMs, requestMs);
  assert.equal(loop.failures.length, 1);
});

test("a guest with few turns, each of them long, loses it for those", () => {
  const loop = new TestLoop();
  for (let n = 0; n < 3; n += 1) loop.turn(GUEST_TURN_MS_MAX + 5, 100);
  assert.ok(isShareError(loop.failures[0], /: 30 ms in one turn, and more than 25 ms in 3 turns within 10 s$/));
});

test("a busy guest beside busy others keeps it", () => {
  const loop = new TestLoop();
  while (loop.monotonicMs() < 5 * GUEST_SHARE_WINDOW_MS) loop.turn(8, 4);
  assert.deepEqual(loop.failures, []);
});
