import type { Clock, Timer } from "../../lib/clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import { START_CPU_SHARE_MIN, START_LOOK_MS, START_TURN_CPU_MS_MAX, START_TURN_MS_MAX } from "./limits.ts";
import { StartTurns } from "./turns.ts";

/** A start's turn. Disposing ends it: the start is over, one way or another. */
export interface StartTurn extends Disposable {
  /**
   * From here on the microVM is looked at that starts: the turn ends by itself when the microVM does not want the CPU any
   * more or has had much of it. `read` gives its CPU times, or null when they cannot be had. `onPassed` is called then, but
   * not when the turn is disposed of before.
   */
  watch(read: () => CpuTimes | null, onPassed: () => void): void;
}

interface Asking {
  readonly give: (turn: StartTurn) => void;
  readonly refuse: (error: Error) => void;
}

/** Lets starts begin in turns (turns.ts says whose is next). */
export class Starts implements Disposable {
  readonly #clock: Clock;
  readonly #turns: StartTurns;
  readonly #asking: Map<string, Asking> = new Map();

  constructor(clock: Clock, turnsMax: number) {
    this.#clock = clock;
    this.#turns = new StartTurns(turnsMax);
  }

  /** Starts that wait for their turn. */
  get waiting(): number {
    return this.#turns.waiting;
  }

  /** Starts that have their turn. */
  get underWay(): number {
    return this.#turns.underWay;
  }

  /** Resolves when the turn of this start has come. Rejects with what `withdraw` is given. */
  turn(id: string, group: string): Promise<StartTurn> {
    const { promise, resolve, reject } = Promise.withResolvers<StartTurn>();
    this.#turns.ask(id, group);
    this.#asking.set(id, { give: resolve, refuse: reject });
    this.#advance();
    return promise;
  }

  /** Takes a start back that waits for its turn; false when it does not. */
  withdraw(id: string, error: Error): boolean {
    if (!this.#turns.withdraw(id)) return false;
    const asking = this.#asking.get(id);
    this.#asking.delete(id);
    asking?.refuse(error);
    return true;
  }

  [Symbol.dispose](): void {
    for (const id of this.#asking.keys()) this.withdraw(id, new Error("no more starts begin here"));
  }

  #advance(): void {
    for (let id = this.#turns.next(); id !== null; id = this.#turns.next()) {
      const asking = this.#asking.get(id);
      this.#asking.delete(id);
      asking?.give(new Turn(this.#clock, this.#ender(id)));
    }
  }

  #ender(id: string): () => void {
    return () => {
      this.#turns.end(id);
      this.#advance();
    };
  }
}

class Turn implements StartTurn {
  readonly #clock: Clock;
  readonly #end: () => void;
  readonly #timers: Timer[] = [];
  #isOver = false;
  #onPassed: () => void = () => {};

  constructor(clock: Clock, end: () => void) {
    this.#clock = clock;
    this.#end = end;
    this.#timers.push(clock.after(START_TURN_MS_MAX, () => this.#pass()));
  }

  watch(read: () => CpuTimes | null, onPassed: () => void): void {
    if (this.#isOver) return onPassed();
    this.#onPassed = onPassed;
    const first = { atMs: this.#clock.monotonicMs(), times: read() };
    let last = first;
    const look = (): void => {
      const now = { atMs: this.#clock.monotonicMs(), times: read() };
      if (now.times === null || last.times === null || first.times === null) return;
      const ranMs = now.times.ranMs - first.times.ranMs;
      const wantedMs = now.times.ranMs + now.times.waitedMs - last.times.ranMs - last.times.waitedMs;
      const wanted = wantedMs >= (now.atMs - last.atMs) * START_CPU_SHARE_MIN;
      last = now;
      if (ranMs >= START_TURN_CPU_MS_MAX || !wanted) this.#pass();
    };
    this.#timers.push(this.#clock.every(START_LOOK_MS, look));
  }

  #pass(): void {
    if (this.#isOver) return;
    this[Symbol.dispose]();
    this.#onPassed();
  }

  [Symbol.dispose](): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const timer of this.#timers) timer[Symbol.dispose]();
    this.#end();
  }
}
