import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { isMissing } from "../../lib/files.ts";

/*
 * How many commits there were, beside the database and outside its write-ahead log. SQLite stops reading a log where it is
 * damaged and says nothing of what came behind: the database then looks whole, and is an older one. Each commit counts
 * itself in the database, and its number is written here once it is durable: when the database comes up with a smaller
 * number than stands here, commits were lost. The mark is not waited for, so that it costs nothing; after a power failure
 * it may stand lower than the database, which tells nothing, and never higher.
 */

const TEXT = /^hearth mark 1\n(?<count>\d{1,16})\n(?<sum>[0-9a-f]{8})\n$/;
const DIGITS = 16;
const HEX = 16;
const SUM_DIGITS = 8;

const textOf = (commits: number): string => {
  const count = String(commits).padStart(DIGITS, "0");
  return `hearth mark 1\n${count}\n${crc32(count).toString(HEX).padStart(SUM_DIGITS, "0")}\n`;
};

/** null when there is none, or none that can be read. */
export const readMark = (path: string): number | null => {
  let text: string;
  try {
    text = readFileSync(path, "latin1");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  const { count = "", sum = "" } = TEXT.exec(text)?.groups ?? {};
  return count !== "" && crc32(count) === Number.parseInt(sum, HEX) ? Number(count) : null;
};

/** Writes the mark, in place: its length never changes, and it lies within one sector. */
export class Mark implements Disposable {
  readonly #descriptor: number;
  readonly #onFailure: (message: string) => void;
  #failing = false;

  /** `onFailure` is told when `note` cannot write any more, once until it could again. */
  constructor(path: string, onFailure: (message: string) => void = () => undefined) {
    this.#onFailure = onFailure;
    this.#descriptor = openSync(path, "a+", 0o600);
    closeSync(this.#descriptor);
    this.#descriptor = openSync(path, "r+");
  }

  write(commits: number): void {
    writeSync(this.#descriptor, textOf(commits), 0, "latin1");
  }

  /** The same, but never throws: the commit is durable all the same, and a mark that is behind only notices less. */
  note(commits: number): void {
    try {
      this.write(commits);
      this.#failing = false;
    } catch (error) {
      if (this.#failing) return;
      this.#failing = true;
      this.#onFailure(`The mark of the database's commits cannot be written: ${String(error)}`);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}
