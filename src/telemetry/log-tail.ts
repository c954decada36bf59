import { LOG_TAIL_BYTES_MAX } from "../wire/limits.ts";

/** The last 4 KB of an invocation's log, as `X-Amz-Log-Result` gives it. Holds at most one line more than that. */
export class LogTail {
  #lines: Buffer[] = [];
  #bytes = 0;

  /** Adds a line; a newline is put behind it. */
  add(line: string): void {
    // Only the end of a long line can be part of the tail.
    const bytes = Buffer.from(`${line.slice(-LOG_TAIL_BYTES_MAX)}\n`).subarray(-LOG_TAIL_BYTES_MAX);
    this.#lines.push(bytes);
    this.#bytes += bytes.length;
    let first = this.#lines[0];
    while (first !== undefined && this.#bytes - first.length >= LOG_TAIL_BYTES_MAX) {
      this.#lines.shift();
      this.#bytes -= first.length;
      first = this.#lines[0];
    }
  }

  /** At most LOG_TAIL_BYTES_MAX bytes; a character cut in two at the front is left out. */
  bytes(): Uint8Array {
    const all = Buffer.concat(this.#lines);
    let from = Math.max(0, all.length - LOG_TAIL_BYTES_MAX);
    // 10xxxxxx is the inside of a UTF-8 sequence.
    while (from < all.length && ((all[from] ?? 0) & 0xc0) === 0x80) from += 1;
    return all.subarray(from);
  }
}
