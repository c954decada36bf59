import type { Clock } from "../../src/lib/clock.ts";
import { ASYNC_RETRIES_MAX_DEFAULT } from "../../src/wire/limits.ts";
import type { GuestObserver, Order } from "./scripted-vm.ts";

/** An end that a worker may give to an invocation that runs: its deadline passed and the guest said nothing. */
const DEADLINE = "the guest did not end an invocation at its deadline";

/** Of an event whose function fails: the first, and the retries. */
const ATTEMPTS_MAX: number = 1 + ASYNC_RETRIES_MAX_DEFAULT;

/** What is known of one call or event. */
export interface Work {
  readonly order: Order;
  readonly functionName: string;
  readonly asynchronous: boolean;
  /** What it asks for ends as an error of the function: it fails, or takes longer than it may. */
  readonly isHopeless: boolean;
  /** The client was told that it is accepted, or (a synchronous call) got its answer. */
  accepted: boolean;
  /** How often a guest began it, and of these ended by themselves, and were cut short by a fault. */
  began: number;
  finished: number;
  cut: number;
  /** Crashes of the process since it was accepted. */
  crashes: number;
  /** Why the queue gave it up; null while it did not. */
  givenUp: string | null;
  /** What the client of a synchronous call got. */
  answer: string | null;
  readonly madeAtMs: number;
}

export interface JournalLimits {
  readonly account: number;
  readonly reserved: ReadonlyMap<string, number>;
  /** How long calls and events of a function may wait until they begin. */
  readonly waitMsMax: ReadonlyMap<string, number>;
}

/** An invariant that did not hold. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/**
 * What happens in a simulated world, line by line with its virtual time, and what must never happen. The lines of two
 * runs of a seed are the same.
 */
export class Journal implements GuestObserver {
  readonly lines: string[] = [];
  readonly work: Map<number, Work> = new Map();
  readonly running: Map<string, number> = new Map();
  readonly violations: string[] = [];
  readonly #clock: Clock;
  readonly #limits: JournalLimits;
  /** The worker is being ended: it may cut what runs. */
  isStopping = false;
  bootFault: GuestObserver["bootFault"] = () => null;

  constructor(clock: Clock, limits: JournalLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  note(text: string): void {
    this.lines.push(`${this.#clock.monotonicMs().toFixed(3)} ${text}`);
  }

  broken(what: string): void {
    this.note(`BROKEN ${what}`);
    this.violations.push(what);
  }

  booted(vm: string): void {
    this.note(`${vm} booted`);
  }

  ready(vm: string, functionName: string): void {
    this.note(`${vm} ready for ${functionName}`);
  }

  began(vm: string, functionName: string, order: Order): void {
    this.note(`${vm} began ${order.n} of ${functionName}`);
    const work = this.work.get(order.n);
    if (work === undefined) return this.broken(`${order.n} runs and nobody asked for it`);
    if (work.functionName !== functionName) this.broken(`${order.n} of ${work.functionName} runs in ${functionName}`);
    work.began += 1;
    const waitedMs = Math.round(this.#clock.monotonicMs() - work.madeAtMs);
    if (work.began === 1 && waitedMs > (this.#limits.waitMsMax.get(functionName) ?? Number.POSITIVE_INFINITY))
      this.broken(`${order.n} of ${functionName} waited for ${waitedMs} ms`);
    this.running.set(functionName, (this.running.get(functionName) ?? 0) + 1);
    let all = 0;
    for (const count of this.running.values()) all += count;
    if (all > this.#limits.account) this.broken(`${all} run at once, the account may have ${this.#limits.account}`);
    const reserved = this.#limits.reserved.get(functionName);
    const here = this.running.get(functionName) ?? 0;
    if (reserved !== undefined && here > reserved) this.broken(`${here} of ${functionName} run, it has ${reserved}`);
    // A function error may be tried twice more; whatever else begins it again was a fault.
    const attemptsMax = (work.asynchronous && work.isHopeless ? ATTEMPTS_MAX : 1) + work.cut + work.crashes;
    if (work.began > attemptsMax) this.broken(`${order.n} began ${work.began} times, ${attemptsMax} may be`);
  }

  ended(vm: string, functionName: string, order: Order, how: string): void {
    this.note(`${vm} ${how} ${order.n}`);
    this.#over(functionName);
    const work = this.work.get(order.n);
    if (work !== undefined) work.finished += 1;
  }

  cut(vm: string, functionName: string, order: Order, detail: string): void {
    this.note(`${vm} cut ${order.n}: ${detail}`);
    this.#over(functionName);
    const work = this.work.get(order.n);
    if (work !== undefined) work.cut += 1;
    if (!this.isStopping && detail !== DEADLINE) {
      this.broken(`${order.n} ran in ${vm} and was ended, neither by its deadline nor by a fault: ${detail}`);
    }
  }

  died(vm: string, functionName: string, order: Order): void {
    this.note(`${vm} died under ${order.n}`);
    this.#over(functionName);
    const work = this.work.get(order.n);
    if (work !== undefined) work.cut += 1;
  }

  #over(functionName: string): void {
    this.running.set(functionName, (this.running.get(functionName) ?? 1) - 1);
  }
}
