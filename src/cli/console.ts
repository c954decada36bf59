/**
 * What a guest's kernel prints when PID 1 ends: the status is that of wait(2) in hexadecimal
 * (`panic("Attempted to kill init! exitcode=0x%08x")` in kernel/exit.c).
 */
const LAST_WORDS = /\r?\n?\[[^\]\n]*\] Kernel panic - not syncing: Attempted to kill init! exitcode=0x([0-9a-f]+)/;
/** Longest start of such a line that may stand at the end of a chunk. */
const HELD_BYTES_MAX = 120;

/**
 * The console of a bare microVM, as a person wants it: when the program given as PID 1 ends, the kernel's panic is
 * taken for what it is, an exit with a status, and not shown.
 */
export class GuestConsole {
  readonly #show: (text: string) => void;
  #held = "";
  #status: number | null = null;
  /** latin1 keeps bytes as they are, so that a character cut in two by a chunk stays whole. */
  readonly #encoding = "latin1" as const;

  constructor(write: (bytes: Uint8Array) => void) {
    this.#show = (text) => {
      if (text !== "") write(Buffer.from(text, this.#encoding));
    };
  }

  /** Exit code of PID 1 as a shell has it (128 + signal); null when it did not end. */
  get exitCode(): number | null {
    if (this.#status === null) return null;
    const signal = this.#status & 0x7f;
    return signal === 0 ? (this.#status >> 8) & 0xff : 128 + signal;
  }

  push(chunk: Uint8Array): void {
    if (this.#status !== null) return;
    const text = this.#held + Buffer.from(chunk).toString(this.#encoding);
    this.#held = "";
    const found = LAST_WORDS.exec(text);
    if (found?.[1] !== undefined) {
      this.#status = Number.parseInt(found[1], 16);
      this.#show(text.slice(0, found.index === 0 ? 0 : found.index + 1));
      return;
    }
    // A line that began with the kernel's time stamp may become its last words: shown once it is whole.
    const line = text.lastIndexOf("\n") + 1;
    const hold = text.startsWith("[", line) && text.length - line <= HELD_BYTES_MAX;
    this.#held = hold ? text.slice(line) : "";
    this.#show(hold ? text.slice(0, line) : text);
  }

  /** Shows what was held back. */
  end(): void {
    if (this.#status === null) this.#show(this.#held);
    this.#held = "";
  }
}
