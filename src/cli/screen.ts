/*
 * A terminal taken over for a while, and given back as it was: the alternate screen of xterm's control sequences
 * (`CSI ? 1049 h`), the cursor hidden, keys read one by one.
 */

import { visibleButColours } from "../lib/visible.ts";

const ENTER = "\u001b[?1049h\u001b[?25l\u001b[2J";
const LEAVE = "\u001b[?25h\u001b[?1049l";
const HOME = "\u001b[H";
const CLEAR_LINE = "\u001b[K";
const CLEAR_BELOW = "\u001b[J";
const RESET = "\u001b[0m";
/** Ends that are asked for by signal; the exit codes are those of shells. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

export interface ScreenEvents {
  /** A key, as the characters that the terminal sends for it. */
  readonly key: (key: string) => void;
  readonly resize: () => void;
}

/** The terminal of this process, until disposed, however the process ends. */
export class Screen implements Disposable {
  readonly #events: ScreenEvents;
  readonly #leave = (): void => this[Symbol.dispose]();
  readonly #onSignal = (signal: keyof typeof SIGNALS): void => process.exit(SIGNALS[signal]);
  readonly #onKeys = (keys: Buffer): void => this.#events.key(keys.toString("latin1"));
  #taken = true;

  constructor(events: ScreenEvents) {
    this.#events = events;
    // The terminal is restored on any way out; `exit` is the one that all of them come through.
    process.on("exit", this.#leave);
    for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) process.on(signal, this.#onSignal);
    process.stdout.on("resize", events.resize);
    if (process.stdin.isTTY) process.stdin.setRawMode(true).on("data", this.#onKeys).resume();
    process.stdout.write(ENTER);
  }

  get rows(): number {
    return process.stdout.rows;
  }

  get columns(): number {
    return process.stdout.columns;
  }

  /** Shows these lines and nothing else. Written over what was there, not cleared before: it does not flicker. */
  show(lines: readonly string[]): void {
    const text = lines.map((line) => `${visibleButColours(line)}${RESET}${CLEAR_LINE}`).join("\r\n");
    process.stdout.write(`${HOME}${text}${CLEAR_BELOW}`);
  }

  [Symbol.dispose](): void {
    if (!this.#taken) return;
    this.#taken = false;
    process.off("exit", this.#leave);
    for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) process.off(signal, this.#onSignal);
    process.stdout.off("resize", this.#events.resize);
    if (process.stdin.isTTY) process.stdin.off("data", this.#onKeys).setRawMode(false).pause();
    process.stdout.write(LEAVE);
  }
}
