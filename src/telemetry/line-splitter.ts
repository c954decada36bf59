import { LOG_LINE_BYTES_MAX } from "../wire/limits.ts";

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/** What becomes of a line: it is kept, or with all that is behind it in its chunk left out, or left there to come again. */
export type LineVerdict = "keep" | "skip" | "wait";

/** What a chunk of output gave. */
export interface SplitLines {
  readonly lines: readonly string[];
  readonly droppedLines: number;
  readonly droppedBytes: number;
  /** The end of the chunk that was not taken: to be pushed again. */
  readonly rest: Uint8Array;
}

const keepAll = (): LineVerdict => "keep";

/**
 * Cuts a guest's output into lines. The output is hostile: a line without end is cut at `lineBytesMax`, so
 * never more than that is held. Bytes that are no UTF-8 become U+FFFD.
 */
export class LineSplitter {
  readonly #lineBytesMax: number;
  #parts: Uint8Array[] = [];
  #bytes = 0;

  constructor(lineBytesMax: number = LOG_LINE_BYTES_MAX) {
    this.#lineBytesMax = lineBytesMax;
  }

  /**
   * Takes a chunk; the lines that it completes come without their newlines. `judge` is asked of each, with its bytes, before
   * anything is made of it: what is skipped is only counted. The chunk is not kept.
   */
  push(chunk: Uint8Array, judge: (lineBytes: number) => LineVerdict = keepAll): SplitLines {
    const lines: string[] = [];
    const nothing = { droppedLines: 0, droppedBytes: 0 };
    let from = 0;
    while (from < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, from);
      const ended = newline === -1 ? chunk.length : newline;
      const end = Math.min(ended, from + this.#lineBytesMax - this.#bytes);
      if (end === ended && newline === -1) {
        this.#keep(chunk.slice(from));
        from = chunk.length;
        break;
      }
      const verdict = judge(this.#bytes + end - from);
      if (verdict === "wait") break;
      if (verdict === "skip") return { lines, ...this.#skip(chunk.subarray(from)), rest: chunk.subarray(chunk.length) };
      lines.push(this.#take(chunk.subarray(from, end)));
      from = end === ended ? end + 1 : end;
    }
    return { lines, ...nothing, rest: chunk.subarray(from) };
  }

  /** Leaves out all lines that `chunk` completes. Its last one may be kept when it is complete. */
  #skip(chunk: Uint8Array): Pick<SplitLines, "droppedLines" | "droppedBytes"> {
    let newlines = 0;
    for (let at = 0; at < chunk.length; at += 1) if (chunk[at] === NEWLINE) newlines += 1;
    const begun = chunk.slice(chunk.lastIndexOf(NEWLINE) + 1);
    // A line that never ends counts as one.
    const isCut = newlines === 0 || begun.length >= this.#lineBytesMax;
    const kept = isCut ? 0 : begun.length;
    const droppedBytes = this.#bytes + chunk.length - newlines - kept;
    this.#forget();
    if (kept > 0) this.#keep(begun);
    return { droppedLines: newlines + (isCut ? 1 : 0), droppedBytes };
  }

  /** What is left without a newline, at the end of the output; null when there is nothing. */
  flush(): string | null {
    return this.#bytes === 0 ? null : this.#take(new Uint8Array());
  }

  #keep(part: Uint8Array): void {
    this.#parts.push(part);
    this.#bytes += part.length;
  }

  #forget(): void {
    this.#parts = [];
    this.#bytes = 0;
  }

  /** The line that `end` completes. */
  #take(end: Uint8Array): string {
    let line = Buffer.concat([...this.#parts, end]);
    if (line.at(-1) === CARRIAGE_RETURN) line = line.subarray(0, -1);
    this.#forget();
    return line.toString("utf8");
  }
}
