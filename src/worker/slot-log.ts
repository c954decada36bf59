import type { Clock } from "../lib/clock.ts";
import { LineSplitter, LogTail } from "../telemetry/function-log.ts";
import type { LogSink } from "../telemetry/function-log.ts";
import { platformLine } from "../telemetry/platform-lines.ts";
import type { LogFormat, PlatformEvent } from "../telemetry/platform-lines.ts";
import { LOG_STDERR } from "../wire/shim-protocol.ts";
import type { Frame } from "../wire/shim-protocol.ts";
import { LogRate } from "./log-rate.ts";

/** u64le Unix time in µs in front of every chunk of output. */
const TIME_BYTES = 8;

/** Output that is not to be read on at once. */
export interface HeldOutput {
  /** What of the frame was not taken; null for all of it was. */
  readonly rest: Frame | null;
  /** How long the guest is to be held back; 0 for until the next turn of the loop. */
  readonly delayMs: number;
}

/** The log of one slot: what the function prints and what the platform says, in order, to the sink and the tail. */
export class SlotLog {
  readonly #sink: LogSink;
  readonly #format: LogFormat;
  readonly #clock: Clock;
  readonly #stdout = new LineSplitter();
  readonly #stderr = new LineSplitter();
  readonly #rate: LogRate;
  #tail: LogTail | null = null;
  /** Left out and not told of yet. */
  #dropped = { records: 0, bytes: 0 };

  /** `rateKib`: what it may write in a second, in KiB, for as long as it likes. */
  constructor(sink: LogSink, format: LogFormat, clock: Clock, rateKib: number) {
    this.#rate = new LogRate(rateKib, clock);
    this.#sink = sink;
    this.#format = format;
    this.#clock = clock;
  }

  /** From here to `closeTail` every line also goes to an invocation's tail. */
  openTail(): void {
    this.#tail = new LogTail();
    this.#rate.hurry(false);
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
    this.#tellDropped();
    this.#platform(event);
  }

  /** Writes the lines that end the log of an invocation whose microVM ended under it. */
  broken(requestId: string, error: unknown, durationMs: number, memoryMb: number): void {
    const message = error instanceof Error ? error.message : String(error);
    const outcome = { status: "error", errorType: "Sandbox.Failure", durationMs } as const;
    const billed = { memoryMb, maxMemoryUsedMb: 0, billedDurationMs: Math.ceil(durationMs) };
    this.platform({ type: "fault", requestId, message, errorType: outcome.errorType });
    this.platform({ type: "end", requestId, ...outcome, producedBytes: 0 });
    this.platform({ type: "report", requestId, ...outcome, ...billed, initDurationMs: null, traceId: null });
    this.closeTail();
  }

  /** A line of the platform's that stands for no event of an invocation. */
  notice(text: string): void {
    this.#line(this.#clock.wallMs(), text, true);
  }

  /** The guest is not held back any more until the next `openTail`: its time is up. */
  hurry(): void {
    this.#rate.hurry(true);
  }

  /**
   * Takes a `Log` frame. The guest's clock is not trusted: the host's own time is what is kept. Returns null, or what to hold back
   * and for how long.
   */
  output(frame: Frame): HeldOutput | null {
    const splitter = (frame.flags & LOG_STDERR) === 0 ? this.#stdout : this.#stderr;
    const timeMs = this.#clock.wallMs();
    const { lines, droppedLines, droppedBytes, rest } = splitter.push(frame.payload.subarray(TIME_BYTES), (bytes) =>
      this.#rate.judge(bytes),
    );
    if (lines.length > 0) this.#tellDropped();
    for (const line of lines) this.#line(timeMs, line);
    this.#dropped = { records: this.#dropped.records + droppedLines, bytes: this.#dropped.bytes + droppedBytes };
    const delayMs = this.#rate.holdMs(frame.payload.length, rest.length > 0);
    if (delayMs === null) return null;
    // The time in front of it is not read, but it is of the frame.
    const again = { ...frame, payload: frame.payload.subarray(frame.payload.length - rest.length - TIME_BYTES) };
    return { rest: rest.length > 0 ? again : null, delayMs };
  }

  /** Ends lines that have no newline, so that they come before what the platform says next. */
  flush(): void {
    const timeMs = this.#clock.wallMs();
    for (const splitter of [this.#stdout, this.#stderr]) {
      const rest = splitter.flush();
      if (rest !== null) this.#line(timeMs, rest);
    }
  }

  /** Says how much is missing, at the place where it is. */
  #tellDropped(): void {
    const { records, bytes } = this.#dropped;
    if (records === 0) return;
    this.#dropped = { records: 0, bytes: 0 };
    this.#sink.leftOut(records);
    this.#platform({
      type: "logsDropped",
      reason: "the function writes more than its log may (--log-rate)",
      records,
      bytes,
    });
  }

  #platform(event: PlatformEvent): void {
    const timeMs = this.#clock.wallMs();
    this.#line(timeMs, platformLine(this.#format, timeMs, event), true);
  }

  #line(timeMs: number, text: string, isPlatform = false): void {
    this.#sink.write({ timeMs, text }, isPlatform);
    this.#tail?.add(text);
  }
}
