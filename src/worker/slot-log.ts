import type { Clock } from "../lib/clock.ts";
import { LineSplitter, LogTail } from "../telemetry/function-log.ts";
import type { LogSink } from "../telemetry/function-log.ts";
import { platformLine } from "../telemetry/platform-lines.ts";
import type { LogFormat, PlatformEvent } from "../telemetry/platform-lines.ts";
import { LOG_STDERR } from "../wire/shim-protocol.ts";
import type { Frame } from "../wire/shim-protocol.ts";

/** u64le Unix time in µs in front of every chunk of output. */
const TIME_BYTES = 8;

/** The log of one slot: what the function prints and what the platform says, in order, to the sink and the tail. */
export class SlotLog {
  readonly #sink: LogSink;
  readonly #format: LogFormat;
  readonly #clock: Clock;
  readonly #stdout = new LineSplitter();
  readonly #stderr = new LineSplitter();
  #tail: LogTail | null = null;

  constructor(sink: LogSink, format: LogFormat, clock: Clock) {
    this.#sink = sink;
    this.#format = format;
    this.#clock = clock;
  }

  /** From here to `closeTail` every line also goes to an invocation's tail. */
  openTail(): void {
    this.#tail = new LogTail();
  }

  /** Ends an invocation's part of the log. */
  closeTail(): Uint8Array {
    const bytes = this.#tail?.bytes() ?? new Uint8Array();
    this.#tail = null;
    return bytes;
  }

  /** Resolves when all of it so far is on file, or the disk refused it. */
  written(): Promise<void> {
    return this.#sink.flush();
  }

  platform(event: PlatformEvent): void {
    const timeMs = this.#clock.wallMs();
    this.#line(timeMs, platformLine(this.#format, timeMs, event), true);
  }

  /** Takes a `Log` frame. The guest's clock is not trusted: the host's own time is what is kept. */
  output(frame: Frame): void {
    const splitter = (frame.flags & LOG_STDERR) === 0 ? this.#stdout : this.#stderr;
    const timeMs = this.#clock.wallMs();
    for (const line of splitter.push(frame.payload.subarray(TIME_BYTES))) this.#line(timeMs, line);
  }

  /** Ends lines that have no newline, so that they come before what the platform says next. */
  flush(): void {
    const timeMs = this.#clock.wallMs();
    for (const splitter of [this.#stdout, this.#stderr]) {
      const rest = splitter.flush();
      if (rest !== null) this.#line(timeMs, rest);
    }
  }

  #line(timeMs: number, text: string, isPlatform = false): void {
    this.#sink.write({ timeMs, text }, isPlatform);
    this.#tail?.add(text);
  }
}
