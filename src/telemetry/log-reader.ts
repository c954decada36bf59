import { open, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { logFilesOf, parseStoredRecord } from "./function-log.ts";
import type { StoredRecord } from "./function-log.ts";

const CHUNK_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;

/**
 * Reads the log of one function, oldest record first, and then what is added to it, while it is written and rotated by
 * another process: every record once, in order. What was rotated away before it was read is counted, not guessed.
 */
export class LogReader implements AsyncDisposable {
  readonly #directory: string;
  readonly #functionName: string;
  #file: FileHandle | null = null;
  #inode = -1;
  #offset = 0;
  /** The beginning of a line whose end is not written yet. */
  #rest: Buffer = Buffer.alloc(0);
  #began = false;
  /** How often files were gone before they had been read. */
  gaps = 0;

  constructor(directory: string, functionName: string) {
    this.#directory = directory;
    this.#functionName = functionName;
  }

  /** Records that come next; empty when there is nothing more for now. */
  async next(): Promise<StoredRecord[]> {
    for (;;) {
      const text = await this.#read();
      if (text !== null) {
        const records = text.split("\n").flatMap((line) => parseStoredRecord(line) ?? []);
        if (records.length > 0) return records;
      } else if (!(await this.#advance())) {
        return [];
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.close();
    this.#file = null;
  }

  /** Whole lines of the file that is open; null at its end. */
  async #read(): Promise<string | null> {
    if (this.#file === null) return null;
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(CHUNK_BYTES), 0, CHUNK_BYTES, this.#offset);
    if (bytesRead === 0) return null;
    this.#offset += bytesRead;
    const bytes = Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)]);
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    this.#rest = bytes.subarray(end);
    return bytes.toString("utf8", 0, end);
  }

  /**
   * Goes on to the file behind the one that is open, which is at its end: a file that was rotated grows no more. False
   * when there is none (yet), or when a rotation is just under way: the next call will see.
   */
  async #advance(): Promise<boolean> {
    const files = await this.#inodes();
    const at = files.findIndex(({ inode }) => inode === this.#inode);
    if (this.#file !== null && at === files.length - 1) return false;
    // At its end a moment ago, and perhaps written to since then and before its rotation.
    if (this.#file !== null && at >= 0 && (await this.#file.stat()).size > this.#offset) return true;
    const next = files[at + 1];
    if (next === undefined) return false;
    const opened = await open(next.path).catch(() => null);
    if (opened === null) return false;
    // While we opened it the names may have moved on by one.
    const isNext = (await opened.stat()).ino === next.inode;
    const isBehind = at < 0 || (await this.#follows(next.inode));
    if (!isNext || !isBehind) {
      await opened.close();
      return false;
    }
    await this.#file?.close();
    if (this.#began && at < 0) this.gaps += 1;
    this.#began = true;
    this.#file = opened;
    this.#inode = next.inode;
    this.#offset = 0;
    this.#rest = Buffer.alloc(0);
    return true;
  }

  /** Whether that file is the one right behind ours. */
  async #follows(inode: number): Promise<boolean> {
    const files = await this.#inodes();
    const at = files.findIndex((file) => file.inode === this.#inode);
    return at >= 0 && files[at + 1]?.inode === inode;
  }

  /** The log's files, oldest first. */
  async #inodes(): Promise<{ readonly path: string; readonly inode: number }[]> {
    const paths = await logFilesOf(this.#directory, this.#functionName);
    const files = await Promise.all(
      paths.map(async (path) => {
        const found = await stat(path).catch(() => null);
        return found === null ? [] : [{ path, inode: found.ino }];
      }),
    );
    return files.flat();
  }
}
