import { constants, fstatSync, openSync, writeSync } from "node:fs";
import type { Clock, Timer } from "../lib/clock.ts";
import { HOST_LOG_PENDING_BYTES_MAX, HOST_LOG_RETRY_MS_MAX, HOST_LOG_RETRY_MS_MIN } from "../wire/limits.ts";

/** What a log of our own is written to. */
export interface TextSink {
  write(text: string): unknown;
}

/**
 * Where Hearth's own log goes. A log must neither stop the service nor occupy it: whoever reads it may be gone (EPIPE),
 * may be slow or stopped (a full pipe, Ctrl-S on a terminal), or may have no space left. Then lines wait in memory, up to
 * a bound; beyond it they are dropped, and how many is said once the way is free. A failure is counted and never logged:
 * that would be the next failure.
 */
export class LogOutput implements TextSink {
  readonly #fd: number;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #timer: Timer | null = null;
  #retryMs = HOST_LOG_RETRY_MS_MIN;
  #dropped = 0;
  #told = 0;
  #failures = 0;
  #onDropped: (lines: number) => void = () => undefined;

  /** `fd` must not block; it stays the caller's. */
  constructor(fd: number, clock: Clock, bytesMax: number = HOST_LOG_PENDING_BYTES_MAX) {
    this.#fd = fd;
    this.#clock = clock;
    this.#bytesMax = bytesMax;
  }

  /** Lines that were dropped, and writes that failed, since the start. */
  get losses(): { readonly lines: number; readonly failures: number } {
    return { lines: this.#dropped, failures: this.#failures };
  }

  /** `tell` is called with the number of lines dropped since it was called last, once lines can be written again. */
  tellDropped(tell: (lines: number) => void): void {
    this.#onDropped = tell;
  }

  /** Writes a line at once where that is possible, else later or never. Never throws, never waits. */
  write(text: string): void {
    const line = Buffer.from(text);
    if (this.#pendingBytes + line.length > this.#bytesMax) {
      this.#dropped += 1;
      return;
    }
    this.#pending.push(line);
    this.#pendingBytes += line.length;
    if (this.#timer === null) this.flush();
  }

  /** Writes what is pending, as far as it is taken. */
  flush(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
    if (!this.#writePending()) {
      this.#timer = this.#clock.after(this.#retryMs, () => this.flush());
      this.#retryMs = Math.min(2 * this.#retryMs, HOST_LOG_RETRY_MS_MAX);
      return;
    }
    this.#retryMs = HOST_LOG_RETRY_MS_MIN;
    const untold = this.#dropped - this.#told;
    this.#told = this.#dropped;
    if (untold > 0) this.#onDropped(untold);
  }

  /** Whether all could be written. */
  #writePending(): boolean {
    for (let [line] = this.#pending; line !== undefined; [line] = this.#pending) {
      try {
        const written = writeSync(this.#fd, line);
        this.#pendingBytes -= written;
        if (written < line.length) this.#pending[0] = line.subarray(written);
        else this.#pending.shift();
      } catch (error) {
        const isFull = error instanceof Error && "code" in error && error.code === "EAGAIN";
        if (!isFull) this.#failures += 1;
        return false;
      }
    }
    return true;
  }
}

const STDERR = 2;

/**
 * A descriptor of what stderr is that does not block. A pipe or a terminal is opened anew, since the flag belongs to what
 * is open, which a shell or a supervisor shares with us. Files never make wait; a socket cannot be opened anew, Node has
 * made that one non-blocking.
 */
const openStderr = (): number => {
  // Looked at for what it does: Node opens a pipe or socket as a stream, and sets O_NONBLOCK.
  Reflect.get(process, "stderr");
  try {
    const status = fstatSync(STDERR);
    if (!status.isFIFO() && !status.isCharacterDevice()) return STDERR;
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
    return openSync(`/proc/self/fd/${STDERR}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    // Closed, nobody reads, or another user's: it is written to as it is, and what fails is counted.
    return STDERR;
  }
};

/** This process's stderr. What is pending when the process ends is tried once more. */
export const stderrOutput = (clock: Clock): LogOutput => {
  const output = new LogOutput(openStderr(), clock);
  process.once("exit", () => output.flush());
  return output;
};
