import type { Clock, Timer } from "./clock.ts";

/**
 * Tells of things that may come in floods: of the first of a kind at once, of those that follow within the period once,
 * by their number. So a log line costs no more for a million of them than for one.
 */
export class Digest implements Disposable {
  readonly #clock: Clock;
  readonly #periodMs: number;
  readonly #tell: (kind: string, count: number, last: string) => void;
  readonly #kinds = new Map<string, { count: number; last: string; timer: Timer }>();

  /** `tell` gets the kind, how many there were since it was last told, and what was noted with the last one. */
  constructor(clock: Clock, periodMs: number, tell: (kind: string, count: number, last: string) => void) {
    this.#clock = clock;
    this.#periodMs = periodMs;
    this.#tell = tell;
  }

  /** `kind` is one of a few words; `detail` may be anything. */
  note(kind: string, detail: string): void {
    const known = this.#kinds.get(kind);
    if (known !== undefined) {
      known.count += 1;
      known.last = detail;
      return;
    }
    this.#open(kind);
    this.#tell(kind, 1, detail);
  }

  #open(kind: string): void {
    const timer = this.#clock.after(this.#periodMs, () => {
      const { count = 0, last = "" } = this.#kinds.get(kind) ?? {};
      this.#kinds.delete(kind);
      if (count === 0) return;
      this.#open(kind);
      this.#tell(kind, count, last);
    });
    this.#kinds.set(kind, { count: 0, last: "", timer });
  }

  [Symbol.dispose](): void {
    for (const { timer } of this.#kinds.values()) timer[Symbol.dispose]();
    this.#kinds.clear();
  }
}
