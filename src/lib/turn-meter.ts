/**
 * One thread serves everybody: requests, timers, and the devices of every guest. Whoever makes it work for long in one go
 * makes all others wait, and nothing in such a process says who that was. So the places at which the loop begins to work
 * for somebody say so here. What counts is CPU time of the thread: how long it waits or is kept from its CPU says
 * something about the machine and nothing about whoever it works for.
 *
 * Reading that clock is a system call, so short work is reckoned by the monotonic clock, which costs a tenth and never
 * shows less.
 */

/** What the loop works for: a guest's devices, a client's request, a timer; `rest` is what nobody said anything about. */
export const TURN_KINDS = ["guest", "request", "timer", "rest"] as const;
export type TurnKind = (typeof TURN_KINDS)[number];

export interface TurnOwner {
  readonly kind: TurnKind;
  /** For the log: the microVM, the operation. */
  readonly name: string;
}

/** What the loop's thread did since the start, in µs. */
export interface LoopUse {
  /** All of its CPU time. */
  readonly cpuUs: number;
  /** That of turns for guests and requests; a little is missing of what requests did to the end of an iteration. */
  readonly servedUs: number;
}

/** What roles see of the meter. */
export interface Turns {
  /** From here to the next call of either kind, or the end of the loop's iteration, the loop works for `owner`. */
  begin(owner: TurnOwner): void;
  /** Does `work` for `owner`, in the midst of another's turn or not. Returns µs of CPU time, or a little more. */
  run(owner: TurnOwner, work: () => void): number;
  use(): LoopUse;
}

/** The clocks of one loop. */
export interface LoopClock {
  /** CPU time of the loop's thread, in µs. */
  cpuUs(): number;
  /** The monotonic clock, in ms. */
  monotonicMs(): number;
  /** Number of the loop's iteration. */
  readonly iteration: number;
  /** CPU time at its start, in µs. */
  readonly iterationBeganUs: number;
}

/** An iteration of the loop that took long. */
export interface LongIteration {
  /** CPU time of all of it, in ms. */
  readonly cpuMs: number;
  /** Whose longest turn in it was, and its CPU time in ms. */
  readonly owner: TurnOwner;
  readonly turnMs: number;
}

/** A turn that takes more of the loop's CPU time is one too long, whoever it was for: others wait as long. */
export const TURN_MS_MAX = 50;
/** Iterations that took more are explained; those below are measured without a word about whose they were. */
export const TURN_NOTED_MS = 10;
/** From here on the clock of CPU time is read: what is shorter is no news. */
const READ_FROM_MS = 1;
const US_PER_MS = 1000;

export const REST: TurnOwner = { kind: "rest", name: "" };

const KIND_WORDS: Readonly<Record<TurnKind, string>> = {
  guest: "the devices of microVM",
  request: "a request",
  timer: "a timer",
  rest: "no one in particular (Hearth itself, a garbage collection)",
};

/** An owner in words, for the log. */
export const tellOwner = ({ kind, name }: TurnOwner): string => {
  if (name === "") return KIND_WORDS[kind];
  return kind === "guest" ? `${KIND_WORDS.guest} ${name}` : `${KIND_WORDS[kind]} (${name})`;
};

/** For what runs in no loop that anybody measures: tests of one part, commands. */
export const noTurns: Turns = {
  begin: () => {},
  run: (_owner, work) => {
    work();
    return 0;
  },
  use: () => ({ cpuUs: 0, servedUs: 0 }),
};

export class TurnMeter implements Turns {
  readonly #clock: LoopClock;
  #owner: TurnOwner = REST;
  #depth = 0;
  #iteration = -1;
  #beganMs = 0;
  /** CPU time when it was last read, and the time of turns since then for which it was not. */
  #cpuUs = 0;
  #sinceUs = 0;
  #servedUs = 0;
  /** The longest turn of this iteration. */
  #longest: { owner: TurnOwner; us: number } = { owner: REST, us: 0 };
  readonly #longestByKind = new Map<TurnKind, number>();

  constructor(clock: LoopClock) {
    this.#clock = clock;
  }

  begin(owner: TurnOwner): void {
    this.#close();
    this.#owner = owner;
  }

  run(owner: TurnOwner, work: () => void): number {
    this.#close();
    const outer = this.#owner;
    this.#owner = owner;
    this.#depth += 1;
    try {
      work();
    } finally {
      this.#depth -= 1;
    }
    const us = this.#close();
    // Behind the outermost comes what the work left to do (promises): that is its owner's as well.
    if (this.#depth > 0) this.#owner = outer;
    return us;
  }

  use(): LoopUse {
    return { cpuUs: this.#clock.cpuUs(), servedUs: this.#servedUs };
  }

  /** Called by the loop's clock after an iteration that took `spentUs`, more than TURN_NOTED_MS: says whose that was. */
  explain(spentUs: number): LongIteration {
    this.#close();
    const { owner, us } = this.#longest;
    // What nobody said anything about is the most of it.
    const rest = spentUs - us > us;
    const turnUs = rest ? spentUs - us : us;
    this.#note(rest ? REST : owner, turnUs);
    return { cpuMs: spentUs / US_PER_MS, owner: rest ? REST : owner, turnMs: turnUs / US_PER_MS };
  }

  /**
   * The longest turn since this was last asked, in ms, by what the loop worked for. What an owner of `begin` did to the end
   * of an iteration is in it only from TURN_NOTED_MS on.
   */
  take(): ReadonlyMap<TurnKind, number> {
    const taken = new Map(TURN_KINDS.map((kind) => [kind, (this.#longestByKind.get(kind) ?? 0) / US_PER_MS]));
    this.#longestByKind.clear();
    return taken;
  }

  #note(owner: TurnOwner, us: number): void {
    if (us > (this.#longestByKind.get(owner.kind) ?? 0)) this.#longestByKind.set(owner.kind, us);
  }

  /** Ends a turn; returns its CPU time in µs. */
  #close(): number {
    const clock = this.#clock;
    const nowMs = clock.monotonicMs();
    const { iteration } = clock;
    if (iteration !== this.#iteration) {
      // What the loop did and waited since the last turn ended was nobody's.
      this.#iteration = iteration;
      this.#owner = REST;
      this.#longest = { owner: REST, us: 0 };
      this.#cpuUs = clock.iterationBeganUs;
      this.#sinceUs = 0;
      this.#beganMs = nowMs;
      return 0;
    }
    let us = (nowMs - this.#beganMs) * US_PER_MS;
    this.#beganMs = nowMs;
    if (us < READ_FROM_MS * US_PER_MS) {
      this.#sinceUs += us;
    } else {
      const cpuUs = clock.cpuUs();
      us = Math.min(us, Math.max(0, cpuUs - this.#cpuUs - this.#sinceUs));
      this.#cpuUs = cpuUs;
      this.#sinceUs = 0;
    }
    if (this.#owner.kind === "guest" || this.#owner.kind === "request") this.#servedUs += us;
    if (us > this.#longest.us) this.#longest = { owner: this.#owner, us };
    this.#note(this.#owner, us);
    return us;
  }
}
