import type { Clock, Timer } from "../lib/clock.ts";
import type { MicroVm } from "../vmm/microvm.ts";
import {
  FREEZE_AFTER_IDLE_MS,
  FREEZE_AFTER_IDLE_MS_MAX,
  FREEZE_FALL_BYTES,
  FREEZE_GROWTH_BYTES,
  FREEZE_LOOK_MS,
} from "../wire/limits.ts";

export interface FreezerParts {
  readonly clock: Clock;
  readonly vm: Pick<MicroVm, "pause" | "resume">;
  /** Measures the host memory that the microVM takes. Must not reject. */
  readonly memoryBytes: () => Promise<number>;
  readonly onError: (error: unknown) => void;
}

/**
 * Freezes a microVM once it has been idle for a moment and thaws it before it is used: between invocations nothing
 * of a function runs, as on Lambda, but a busy slot does not pay for a freeze after every invocation. One that took much
 * more memory than before is left running until what it freed has come back to the host.
 */
export class Freezer {
  readonly #parts: FreezerParts;
  #timer: Timer | null = null;
  /** Counts the times that it was idle, so that a look that took long knows whether it still is. */
  #idleTime = 0;
  #isIdle = false;
  /** What it took when it was last frozen. */
  #frozenBytes = 0;
  /** The freeze or thaw that is under way, or done. */
  #last: Promise<void> = Promise.resolve();
  #frozen = false;

  constructor(parts: FreezerParts) {
    this.#parts = parts;
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  idle(): void {
    if (this.#isIdle) return;
    this.#isIdle = true;
    this.#idleTime += 1;
    this.#wait(FREEZE_AFTER_IDLE_MS, 0, null);
  }

  /** Resolves when the guest runs. At once when it was not frozen. */
  async wake(): Promise<void> {
    this.close();
    if (!this.#frozen) return;
    this.#frozen = false;
    this.#last = this.#last.then(() => this.#parts.vm.resume());
    await this.#last;
  }

  close(): void {
    this.#isIdle = false;
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
  }

  #wait(ms: number, waitedMs: number, bytesBefore: number | null): void {
    this.#timer = this.#parts.clock.after(ms, () => this.#look(waitedMs + ms, bytesBefore));
  }

  async #look(waitedMs: number, bytesBefore: number | null): Promise<void> {
    const idleTime = this.#idleTime;
    const bytes = await this.#parts.memoryBytes();
    if (!this.#isIdle || idleTime !== this.#idleTime) return;
    const grew = bytes - this.#frozenBytes >= FREEZE_GROWTH_BYTES;
    const falls = bytesBefore === null || bytesBefore - bytes >= FREEZE_FALL_BYTES;
    if (grew && falls && waitedMs + FREEZE_LOOK_MS <= FREEZE_AFTER_IDLE_MS_MAX) {
      return this.#wait(FREEZE_LOOK_MS, waitedMs, bytes);
    }
    this.#timer = null;
    this.#frozen = true;
    this.#frozenBytes = bytes;
    this.#last = this.#last.then(() => this.#parts.vm.pause()).catch(this.#parts.onError);
    return this.#last;
  }
}
