import { MinHeap } from "../../lib/min-heap.ts";
import type { Random } from "../../lib/random.ts";

/*
 * Whose event runs next. With one queue in the order of its events a function that sleeps for 15 minutes takes every place
 * there is, and all others wait for it; and an event that is throttled waits for longer and longer while the slot that it
 * needs is free. So functions take turns, and what is known of a function is kept with the function, not with its events:
 *
 * - Round robin: whoever was given an event goes behind the others.
 * - A function may have as many events running as there are places left after them ("dynamic thresholds" of buffer
 *   sharing: Choudhury and Hahne, 1998): alone it gets half of the places, of n functions each gets one part of n + 1. So
 *   there is always room for one more, and nothing was set aside for nobody.
 * - A function of which nothing runs may have one event beyond all places, up to a second bound.
 * - A function that was throttled has as many running as then ran, and gets its next event when one of them has ended. By
 *   a back-off with jitter, and when concurrency came free elsewhere, one more is tried.
 *
 * Nothing here reads a clock, waits, or knows an event: it is told what happens, and says whom to claim for. All moments
 * are ms of the caller's monotonic time. Memory is a few words for each function with events that are waiting or running.
 */

export interface ScheduleLimits {
  /** Places that functions share. */
  readonly sharedMax: number;
  /** Places beyond those, for functions of which nothing runs. */
  readonly firstsMax: number;
  /** Events of one function that are claimed at once: what comes into memory in one go. */
  readonly claimMax: number;
  /** The wait after a first throttle, which doubles with each further one up to the longest. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** A throttled function of which nothing runs tries again no sooner than this after its last try, whatever came free. */
  readonly freedMsMin: number;
}

/** What to claim now. */
export interface Grant {
  readonly name: string;
  readonly count: number;
}

/** What a function was throttled for: its own limit, or what all share (the account's concurrency, the host). */
export type ThrottledBy = "function" | "all";

/** In state `waiting` a function is in the heap, to be looked at when `wakeMs` has come. */
interface Turn {
  readonly name: string;
  /** When its next event is due, as far as is known; Infinity for none. */
  dueMs: number;
  /** Those that are being claimed count. */
  running: number;
  claiming: boolean;
  /** Events that may run after a throttle; null as long as there was none. */
  cap: number | null;
  /** When one more than `cap` is tried. */
  retryMs: number;
  throttledMs: number;
  /** How many tries have failed in a row. */
  failures: number;
  /** One more than `cap` was let through, and nothing is known of it yet. */
  trying: boolean;
  /** Its place in the heap that counts: others of it are old. */
  wakeMs: number | null;
}

const NEVER = Number.POSITIVE_INFINITY;

export class FairSchedule {
  readonly #limits: ScheduleLimits;
  readonly #random: Random;
  readonly #turns: Map<string, Turn> = new Map();
  /** Functions that have something due, in the order of their turns. */
  readonly #ring: Set<Turn> = new Set();
  readonly #waiting: MinHeap<Turn> = new MinHeap();
  /** Functions that wait for what all share, longest first. */
  readonly #wantShared: Set<Turn> = new Set();
  #running = 0;

  constructor(limits: ScheduleLimits, random: Random) {
    this.#limits = limits;
    this.#random = random;
  }

  /** Events that run or are being claimed. */
  get running(): number {
    return this.#running;
  }

  /** Functions that something is known of. */
  get size(): number {
    return this.#turns.size;
  }

  /** Functions that have fewer events running than are due, because they were throttled. */
  get throttledFunctions(): number {
    let count = 0;
    for (const turn of this.#turns.values()) if (turn.cap !== null && turn.running >= turn.cap) count += 1;
    return count;
  }

  /** A function has an event that is due then. */
  due(name: string, dueMs: number, nowMs: number): void {
    const turn = this.#turns.get(name) ?? this.#add(name);
    turn.dueMs = Math.min(turn.dueMs, dueMs);
    this.#place(turn, nowMs);
  }

  /** For whom to claim events now, and how many. Each grant is to be answered by `claimed`. */
  take(nowMs: number): readonly Grant[] {
    this.#wake(nowMs);
    const counts = new Map<Turn, number>();
    for (let gave = true; gave;) {
      gave = false;
      for (const turn of this.#ring) {
        if (this.#running >= this.#limits.sharedMax + this.#limits.firstsMax) break;
        const count = counts.get(turn) ?? 0;
        if (count === this.#limits.claimMax || !this.#mayRun(turn, nowMs)) continue;
        if (turn.cap !== null && turn.running >= turn.cap) this.#try(turn);
        turn.running += 1;
        this.#running += 1;
        counts.set(turn, count + 1);
        gave = true;
      }
    }
    for (const turn of counts.keys()) {
      turn.claiming = true;
      turn.dueMs = NEVER;
      this.#ring.delete(turn);
    }
    return [...counts].map(([{ name }, count]) => ({ name, count }));
  }

  /** A grant was used for `got` of its events; the function's next is due then (null for none). */
  claimed({ name, count }: Grant, got: number, nextDueMs: number | null, nowMs: number): void {
    const turn = this.#turns.get(name);
    if (turn === undefined) return;
    turn.claiming = false;
    turn.running -= count - got;
    this.#running -= count - got;
    turn.dueMs = Math.min(turn.dueMs, nextDueMs ?? NEVER);
    this.#place(turn, nowMs);
  }

  /** A claimed event has run, whatever came of it. */
  ended(name: string, nowMs: number): void {
    const turn = this.#end(name);
    if (turn === undefined) return;
    if (turn.trying) {
      // There was room for one more: there may be for another.
      turn.trying = false;
      turn.failures = 0;
      turn.retryMs = nowMs;
    }
    if (turn.cap !== null && turn.cap >= this.#limits.sharedMax) turn.cap = null;
    this.#place(turn, nowMs);
  }

  /** A claimed event could not run for want of concurrency. It goes back, and is the function's next. */
  throttled(name: string, by: ThrottledBy, nowMs: number): void {
    const turn = this.#end(name);
    if (turn === undefined) return;
    const isNews = turn.cap === null || turn.trying || nowMs >= turn.retryMs;
    turn.cap = turn.running;
    turn.trying = false;
    turn.throttledMs = nowMs;
    // A burst of events that are throttled together is one failure.
    if (isNews) {
      turn.retryMs = nowMs + this.#backoffMs(turn.failures);
      turn.failures += 1;
    }
    if (by === "all") this.#wantShared.add(turn);
    turn.dueMs = Math.min(turn.dueMs, nowMs);
    this.#place(turn, nowMs);
  }

  /** An invocation of this function ended, be it one of the queue's or anybody's: its concurrency is free. */
  freed(name: string, nowMs: number): void {
    const turn = this.#turns.get(name);
    if (turn?.cap !== null && turn !== undefined) this.#retrySoon(turn, nowMs);
    const [first] = this.#wantShared;
    if (first === undefined || first === turn) return;
    this.#wantShared.delete(first);
    this.#retrySoon(first, nowMs);
  }

  /** When `take` may give something though nothing has happened; null for never. */
  wakeMs(): number | null {
    for (;;) {
      const next = this.#waiting.peek();
      if (next === null) return null;
      if (next.item.wakeMs === next.key) return next.key;
      this.#waiting.pop();
    }
  }

  #add(name: string): Turn {
    const nothing = { running: 0, claiming: false, cap: null, failures: 0, trying: false, wakeMs: null };
    const turn: Turn = { name, dueMs: NEVER, retryMs: 0, throttledMs: 0, ...nothing };
    this.#turns.set(name, turn);
    return turn;
  }

  #end(name: string): Turn | undefined {
    const turn = this.#turns.get(name);
    if (turn === undefined) return undefined;
    turn.running -= 1;
    this.#running -= 1;
    return turn;
  }

  #mayRun(turn: Turn, nowMs: number): boolean {
    const { sharedMax, firstsMax } = this.#limits;
    if (turn.cap !== null && turn.running >= turn.cap && (turn.trying || nowMs < turn.retryMs)) return false;
    if (turn.running < sharedMax - this.#running) return true;
    return turn.running === 0 && this.#running < sharedMax + firstsMax;
  }

  #try(turn: Turn): void {
    turn.cap = turn.running + 1;
    turn.trying = true;
  }

  /** Half of it is sure, half is drawn: those that were throttled together do not come back together. */
  #backoffMs(failures: number): number {
    const { backoffMsMin, backoffMsMax } = this.#limits;
    const longestMs = Math.min(backoffMsMin * 2 ** failures, backoffMsMax);
    return (longestMs * (1 + this.#random())) / 2;
  }

  #retrySoon(turn: Turn, nowMs: number): void {
    const { freedMsMin, backoffMsMin } = this.#limits;
    // While events of its own run, what came free is mostly theirs, and each of them brings the next event anyway.
    const soonestMs = turn.throttledMs + (turn.running === 0 ? freedMsMin : backoffMsMin);
    turn.retryMs = Math.min(turn.retryMs, Math.max(nowMs, soonestMs));
    this.#place(turn, nowMs);
  }

  /** Puts a function where it belongs: into the ring, among the waiting, or nowhere. */
  #place(turn: Turn, nowMs: number): void {
    if (turn.dueMs === NEVER) {
      this.#ring.delete(turn);
      turn.wakeMs = null;
      if (turn.running > 0 || turn.claiming) return;
      this.#turns.delete(turn.name);
      this.#wantShared.delete(turn);
      return;
    }
    if (turn.claiming) return;
    const held = turn.cap !== null && turn.running >= turn.cap;
    // What is being tried tells when it ends.
    const readyMs = Math.max(turn.dueMs, held ? (turn.trying ? NEVER : turn.retryMs) : 0);
    if (readyMs <= nowMs) {
      turn.wakeMs = null;
      this.#ring.add(turn);
      return;
    }
    this.#ring.delete(turn);
    if (turn.wakeMs === readyMs) return;
    turn.wakeMs = readyMs === NEVER ? null : readyMs;
    if (readyMs !== NEVER) this.#waiting.push(readyMs, turn);
  }

  #wake(nowMs: number): void {
    for (;;) {
      const next = this.#waiting.peek();
      if (next === null || next.key > nowMs) return;
      this.#waiting.pop();
      if (next.item.wakeMs !== next.key) continue;
      next.item.wakeMs = null;
      this.#place(next.item, nowMs);
    }
  }
}
