import { LOG_LINE_BYTES_MAX } from "../wire/limits.ts";

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

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

  /** The lines that `chunk` completes, without their newlines. The chunk is not kept. */
  push(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let from = 0;
    while (from < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, from);
      const end = newline === -1 ? chunk.length : newline;
      const room = this.#lineBytesMax - this.#bytes;
      if (end - from > room) {
        this.#keep(chunk.slice(from, from + room));
        lines.push(this.#take());
        from += room;
      } else {
        this.#keep(chunk.slice(from, end));
        if (newline !== -1) lines.push(this.#take());
        from = end + 1;
      }
    }
    return lines;
  }

  /** What is left without a newline, at the end of the output; null when there is nothing. */
  flush(): string | null {
    return this.#bytes === 0 ? null : this.#take();
  }

  #keep(part: Uint8Array): void {
    this.#parts.push(part);
    this.#bytes += part.length;
  }

  #take(): string {
    let line = Buffer.concat(this.#parts);
    if (line.at(-1) === CARRIAGE_RETURN) line = line.subarray(0, -1);
    this.#parts = [];
    this.#bytes = 0;
    return line.toString("utf8");
  }
}
