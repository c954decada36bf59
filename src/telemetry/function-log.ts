import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { Clock, Timer } from "../lib/clock.ts";
import {
  LOG_FILE_BYTES_MAX,
  LOG_FILES_MAX,
  LOG_FLUSH_MS,
  LOG_OPEN_FILES_MAX,
  LOG_OPEN_MS,
  LOG_PENDING_BYTES_MAX,
  LOG_PENDING_BYTES_TOTAL_MAX,
  LOG_TRIM_MS,
  LOG_TRIM_MS_MIN,
} from "../wire/limits.ts";
import { trimLogs } from "./log-retention.ts";
import type { LogRetention } from "./log-retention.ts";
import { platformText } from "./platform-lines.ts";

export { LogTail } from "./log-tail.ts";
export { LineSplitter } from "./line-splitter.ts";

/** One line of a function's log. `timeMs` is Unix time; `text` has no closing newline. */
export interface LogRecord {
  readonly timeMs: number;
  readonly text: string;
}

/** Where a slot's log goes. Never blocks and never throws: under a flood records are dropped and counted. */
export interface LogSink {
  /** What the platform itself says (`isPlatform`) is let through when the function's own lines no longer are. */
  write(record: LogRecord, isPlatform?: boolean): void;
  /** Counts records that the slot itself left out: they are not given to `write`. */
  leftOut(records: number): void;
  /** Resolves when everything so far is on file, or the disk refused it. Never rejects. */
  flush(): Promise<void>;
}

export interface FunctionLogsOptions {
  readonly clock: Clock;
  readonly fileBytesMax?: number;
  readonly filesMax?: number;
  readonly pendingBytesMax?: number;
  readonly pendingBytesTotalMax?: number;
  /** What is kept of all functions' logs; without it everything is. */
  readonly retention?: LogRetention;
  /** Told of errors of the disk; the logs go on without. */
  readonly onError?: (error: unknown) => void;
}

/** A record as it stands in the file: one JSON object a line. */
export interface StoredRecord extends LogRecord {
  readonly stream: string;
}

/** Name of the file that is being written; older ones are `log.1.jsonl` (the youngest), `log.2.jsonl` … */
export const LOG_FILE = "log.jsonl";
export const rotatedLogFile = (age: number): string => `log.${age}.jsonl`;

/** What all logs share. */
interface Budget {
  /** Told when a log has one file more. */
  readonly rotated: () => void;
  pendingBytes: number;
  droppedRecords: number;
  openFiles: number;
}

type Limits = Required<Omit<FunctionLogsOptions, "onError" | "clock" | "retention">>;

/** Ends a last line that was cut off, by a crash or by a full disk: it must not take the next one along. Bytes of the file. */
const endLine = async (handle: FileHandle): Promise<number> => {
  const { size } = await handle.stat();
  if (size === 0) return 0;
  const { buffer: last } = await handle.read(Buffer.alloc(1), 0, 1, size - 1);
  if (last.toString() === "\n") return size;
  await handle.write("\n");
  return size + 1;
};

interface Loss {
  /** Lines that tell of it. */
  readonly notices: number;
  readonly records: number;
  readonly bytes: number;
}
const NOTHING_LOST: Loss = { notices: 0, records: 0, bytes: 0 };
/** What may wait at most when the platform's own lines are added. */
const PLATFORM_SHARE = 2;

/** The log of one function: batches in memory, one file on disk, rotated by size. */
class FunctionLog {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #budget: Budget;
  readonly #onError: (error: unknown) => void;
  #pending: string[] = [];
  #pendingBytes = 0;
  #droppedRecords = 0;
  #droppedBytes = 0;
  /** Of these, what lines in `#pending` tell. */
  #told: Loss = NOTHING_LOST;
  /** Open from one batch to the next while they follow each other. */
  #file: { readonly handle: FileHandle; bytes: number } | null = null;
  #timer: Timer | null = null;
  #idleTimer: Timer | null = null;
  #writing: Promise<void> = Promise.resolve();

  constructor(directory: string, clock: Clock, limits: Limits, budget: Budget, onError: (error: unknown) => void) {
    this.#directory = directory;
    this.#clock = clock;
    this.#limits = limits;
    this.#budget = budget;
    this.#onError = onError;
  }

  /** `streamJson` is the stream's name as JSON: the same for thousands of lines. */
  write(streamJson: string, record: LogRecord, isPlatform: boolean): void {
    this.#timer ??= this.#clock.after(LOG_FLUSH_MS, () => this.flush());
    // A line that cannot fit is not worth being made.
    if (!this.#fits(record.text.length, isPlatform)) {
      this.#drop(1, record.text.length);
      return;
    }
    const line = `{"timeMs":${record.timeMs},"stream":${streamJson},"text":${JSON.stringify(record.text)}}\n`;
    if (this.#droppedRecords > 0) this.#tellDropped();
    this.#pending.push(line);
    this.#pendingBytes += line.length;
    this.#budget.pendingBytes += line.length;
  }

  /** Characters stand for bytes here: close enough for a bound, and free. */
  #fits(length: number, isPlatform: boolean): boolean {
    const { pendingBytesMax, pendingBytesTotalMax } = this.#limits;
    const share = isPlatform ? PLATFORM_SHARE : 1;
    return (
      this.#pendingBytes + length <= pendingBytesMax * share &&
      this.#budget.pendingBytes + length <= pendingBytesTotalMax * share
    );
  }

  /** Everything written so far is in the file when this resolves. */
  flush(): Promise<void> {
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
    this.#writing = this.#writing.then(() => this.#writeBatch()).catch(this.#onError);
    return this.#writing;
  }

  /** Writes what is pending and lets go of the file. It is opened again when more is written. */
  close(): Promise<void> {
    void this.flush();
    this.#writing = this.#writing.then(() => this.#closeFile()).catch(this.#onError);
    return this.#writing;
  }

  async #writeBatch(): Promise<void> {
    if (this.#droppedRecords > 0) this.#tellDropped();
    const batch = this.#pending;
    const batchBytes = this.#pendingBytes;
    if (batch.length === 0) return;
    this.#idleTimer?.[Symbol.dispose]();
    this.#pending = [];
    const told = this.#told;
    this.#told = NOTHING_LOST;
    try {
      await this.#append(Buffer.from(batch.join("")));
    } catch (error) {
      this.#drop(batch.length - told.notices, batchBytes);
      // They were not told of.
      this.#droppedRecords += told.records;
      this.#droppedBytes += told.bytes;
      await this.#closeFile();
      throw error;
    } finally {
      // Given back only now: what is on its way to the disk counts as memory too.
      this.#pendingBytes -= batchBytes;
      this.#budget.pendingBytes -= batchBytes;
    }
    if (this.#budget.openFiles > LOG_OPEN_FILES_MAX) await this.#closeFile();
    else this.#idleTimer = this.#clock.after(LOG_OPEN_MS, () => this.close());
  }

  #drop(records: number, bytes: number): void {
    this.#droppedRecords += records;
    this.#budget.droppedRecords += records;
    this.#droppedBytes += bytes;
  }

  /** Says how much is missing, at the place where it is. */
  #tellDropped(): void {
    const { notices, records, bytes } = this.#told;
    this.#told = { notices: notices + 1, records: records + this.#droppedRecords, bytes: bytes + this.#droppedBytes };
    const timeMs = this.#clock.wallMs();
    const text = platformText(timeMs, {
      type: "logsDropped",
      reason: "the log could not be kept: the function writes too fast, or the disk took no more",
      records: this.#droppedRecords,
      bytes: this.#droppedBytes,
    });
    this.#droppedRecords = 0;
    this.#droppedBytes = 0;
    this.#pending.push(`${JSON.stringify({ timeMs, stream: "platform", text })}\n`);
  }

  async #append(bytes: Buffer): Promise<void> {
    let file = await this.#open();
    if (file.bytes > 0 && file.bytes + bytes.length > this.#limits.fileBytesMax) {
      await this.#closeFile();
      await this.#rotate();
      this.#budget.rotated();
      file = await this.#open();
    }
    for (let at = 0; at < bytes.length;) {
      const { bytesWritten } = await file.handle.write(bytes, at);
      at += bytesWritten;
      file.bytes += bytesWritten;
    }
  }

  async #open(): Promise<{ readonly handle: FileHandle; bytes: number }> {
    if (this.#file !== null) return this.#file;
    await mkdir(this.#directory, { recursive: true, mode: 0o750 });
    const handle = await open(join(this.#directory, LOG_FILE), "a+", 0o640);
    this.#budget.openFiles += 1;
    this.#file = { handle, bytes: 0 };
    this.#file.bytes = await endLine(handle);
    return this.#file;
  }

  async #closeFile(): Promise<void> {
    this.#idleTimer?.[Symbol.dispose]();
    const file = this.#file;
    if (file === null) return;
    this.#file = null;
    this.#budget.openFiles -= 1;
    await file.handle.close();
  }

  async #rotate(): Promise<void> {
    const name = (age: number): string => join(this.#directory, age === 0 ? LOG_FILE : rotatedLogFile(age));
    await rm(name(this.#limits.filesMax - 1), { force: true });
    for (let age = this.#limits.filesMax - 2; age >= 0; age -= 1) {
      await rename(name(age), name(age + 1)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      });
    }
  }
}

/**
 * The logs of all functions, under one directory: `<dir>/<function>/log.jsonl`. Every stream (one for each slot)
 * of a function goes to the function's one file. Memory and disk are bounded, see the LOG_ limits.
 */
export class FunctionLogs {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #onError: (error: unknown) => void;
  readonly #budget: Budget = {
    pendingBytes: 0,
    droppedRecords: 0,
    openFiles: 0,
    rotated: () => this.#trimSoon(),
  };
  /** A log lives as long as a slot writes to it or it has something to write: functions come and go without end. */
  readonly #logs: Map<string, WeakRef<FunctionLog>> = new Map();
  readonly #forgotten: FinalizationRegistry<string> = new FinalizationRegistry((name) => {
    if (this.#logs.get(name)?.deref() === undefined) this.#logs.delete(name);
  });
  readonly #retention: LogRetention | null;
  #trimTimer: Timer | null = null;
  #trimming: Promise<void> | null = null;
  #closed = false;

  constructor(directory: string, options: FunctionLogsOptions) {
    this.#directory = directory;
    this.#clock = options.clock;
    this.#limits = {
      fileBytesMax: options.fileBytesMax ?? LOG_FILE_BYTES_MAX,
      filesMax: options.filesMax ?? LOG_FILES_MAX,
      pendingBytesMax: options.pendingBytesMax ?? LOG_PENDING_BYTES_MAX,
      pendingBytesTotalMax: options.pendingBytesTotalMax ?? LOG_PENDING_BYTES_TOTAL_MAX,
    };
    this.#onError = options.onError ?? (() => {});
    this.#retention = options.retention ?? null;
    if (this.#retention !== null) void this.trim();
  }

  /** Removes what is kept no longer, now, unless that is under way. Never rejects. */
  trim(): Promise<void> {
    this.#trimming ??= this.#trim().finally(() => {
      this.#trimming = null;
      this.#trimIn(LOG_TRIM_MS);
    });
    return this.#trimming;
  }

  async #trim(): Promise<void> {
    if (this.#retention === null) return;
    try {
      await trimLogs(this.#directory, this.#retention, this.#clock.wallMs());
    } catch (error) {
      this.#onError(error);
    }
  }

  #trimIn(delayMs: number): void {
    this.#trimTimer?.[Symbol.dispose]();
    this.#trimTimer = this.#closed || this.#retention === null ? null : this.#clock.after(delayMs, () => this.trim());
  }

  /** There is more to keep than at the last trimming; many floods at once do not trim all the time. */
  #trimSoon(): void {
    if (this.#trimming === null) this.#trimIn(LOG_TRIM_MS_MIN);
  }

  /** Records dropped since the start, of all functions together. */
  get droppedRecords(): number {
    return this.#budget.droppedRecords;
  }

  /** A sink for one slot. `functionName` is the bare name (it becomes a directory); throws when it is no such name. */
  stream(functionName: string, streamName: string): LogSink {
    if (!/^[\w-]+$/.test(functionName)) throw new Error(`"${functionName}" is no function name, so it has no log`);
    let log = this.#logs.get(functionName)?.deref();
    if (log === undefined) {
      log = new FunctionLog(
        join(this.#directory, functionName),
        this.#clock,
        this.#limits,
        this.#budget,
        this.#onError,
      );
      this.#logs.set(functionName, new WeakRef(log));
      this.#forgotten.register(log, functionName);
    }
    const kept = log;
    const streamJson = JSON.stringify(streamName);
    const write: LogSink["write"] = (record, isPlatform = false) => kept.write(streamJson, record, isPlatform);
    const leftOut = (records: number): void => void (this.#budget.droppedRecords += records);
    return { write, leftOut, flush: () => kept.flush() };
  }

  #alive(): FunctionLog[] {
    return [...this.#logs.values()].map((log) => log.deref()).filter((log) => log !== undefined);
  }

  /** Everything written so far is in the files when this resolves. */
  async flush(): Promise<void> {
    await Promise.all(this.#alive().map((log) => log.flush()));
  }

  /** Writes what is pending. The sinks may still be written to, into the void. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#trimTimer?.[Symbol.dispose]();
    await Promise.all(this.#alive().map((log) => log.close()));
    await this.#trimming;
    this.#logs.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** How often a log file was rotated; 0 for the one being written. */
const ageOf = (name: string): number => Number(/^log\.(\d+)\.jsonl$/.exec(name)?.[1] ?? 0);

/** The log files of a function that exist, oldest first. Empty when it never wrote anything. */
export const logFilesOf = async (directory: string, functionName: string): Promise<string[]> => {
  const names = await readdir(join(directory, functionName)).catch(() => []);
  return names
    .filter((name) => name === LOG_FILE || /^log\.\d+\.jsonl$/.test(name))
    .sort((a, b) => ageOf(b) - ageOf(a))
    .map((name) => join(directory, functionName, name));
};

/** Reads one line of a log file; null when it is none (a line cut off by a crash). */
export const parseStoredRecord = (line: string): StoredRecord | null => {
  try {
    const value = JSON.parse(line) as Partial<StoredRecord> | null;
    if (typeof value?.timeMs !== "number" || typeof value.text !== "string") return null;
    return { timeMs: value.timeMs, stream: value.stream ?? "", text: value.text };
  } catch {
    return null;
  }
};
