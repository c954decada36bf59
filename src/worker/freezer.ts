import type { MicroVm } from "../vmm/microvm.ts";
import { FREEZE_AFTER_IDLE_MS } from "../wire/limits.ts";

/**
 * Freezes a microVM once it has been idle for a moment and thaws it before it is used: between invocations nothing
 * of a function runs, as on Lambda, but a busy slot does not pay for a freeze after every invocation.
 */
export class Freezer {
  readonly #vm: Pick<MicroVm, "pause" | "resume">;
  readonly #onError: (error: unknown) => void;
  #timer: NodeJS.Timeout | null = null;
  /** The freeze or thaw that is under way, or done. */
  #last: Promise<void> = Promise.resolve();
  #frozen = false;

  constructor(vm: Pick<MicroVm, "pause" | "resume">, onError: (error: unknown) => void) {
    this.#vm = vm;
    this.#onError = onError;
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  idle(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#frozen = true;
      this.#last = this.#last.then(() => this.#vm.pause()).catch(this.#onError);
    }, FREEZE_AFTER_IDLE_MS);
  }

  /** Resolves when the guest runs. At once when it was not frozen. */
  async wake(): Promise<void> {
    this.close();
    if (!this.#frozen) return;
    this.#frozen = false;
    this.#last = this.#last.then(() => this.#vm.resume());
    await this.#last;
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
