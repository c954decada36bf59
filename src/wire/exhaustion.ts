import { ServiceError } from "./errors.ts";

/*
 * What the host has run out of, told from a system call's or SQLite's error: which limit, and what to do. The service
 * goes on, and so does the request when it is tried again once there is room: 503, which SDKs and the asynchronous
 * queue try again by themselves.
 */

const UNAVAILABLE = 503;

const DISK = "There is no space left on the disk of Hearth's data directory, so nothing was stored.";
const DISK_REMEDY = "Free some (remove functions or logs), then try again.";

/** By error code: what is used up, and what helps. */
const EXHAUSTED: ReadonlyMap<string, string> = new Map([
  ["ENOSPC", `${DISK} ${DISK_REMEDY}`],
  ["EDQUOT", `The disk quota of Hearth's data directory is used up, so nothing was stored. ${DISK_REMEDY}`],
  ["EROFS", "Hearth's data directory cannot be written: its file system is mounted read-only. Mount it writable."],
  [
    "EIO",
    "The disk of Hearth's data directory reports errors (EIO), so nothing was stored. Look at the host's kernel log; try again once the disk is well.",
  ],
  [
    "SQLITE_CANTOPEN",
    "Hearth's database cannot open a file of its own: too many files are open (`ulimit -n`, sysctl fs.file-max), or its directory is gone. Try again when fewer invocations run.",
  ],
  [
    "EMFILE",
    "Hearth has as many files open as it may (RLIMIT_NOFILE). Try again when fewer invocations run, or raise the limit (`ulimit -n`) before it starts.",
  ],
  [
    "ENFILE",
    "This host has as many files open as it may (sysctl fs.file-max). Try again when fewer are, or raise the limit.",
  ],
  [
    "EAGAIN",
    "Hearth may start no further process (`ulimit -u`, or pids.max of its control group). Try again when fewer invocations run, or raise the limit.",
  ],
  [
    "ENOMEM",
    "This host has no memory left for a further microVM. Try again when fewer invocations run, or give it more memory.",
  ],
]);

/** Result codes of SQLite ("Result and Error Codes" in its documentation). */
const SQLITE_NOMEM = 7;
const SQLITE_IOERR = 10;
const SQLITE_FULL = 13;
const SQLITE_CANTOPEN = 14;
/** An extended result code has its primary one in the lowest byte. */
const SQLITE_PRIMARY = 0xff;
const SQLITE_CODES: ReadonlyMap<number, string> = new Map([
  [SQLITE_NOMEM, "ENOMEM"],
  [SQLITE_IOERR, "EIO"],
  [SQLITE_FULL, "ENOSPC"],
  [SQLITE_CANTOPEN, "SQLITE_CANTOPEN"],
]);

/** EAGAIN means "no more processes" only where one was to be made. */
const isSpawn = (error: Error): boolean => "syscall" in error && String(error.syscall).startsWith("spawn");

const codeOf = (error: unknown): string | null => {
  if (!(error instanceof Error)) return null;
  // What failed first, and what then failed while it was cleared away: the first is the cause, the second may be.
  if (error instanceof SuppressedError) return codeOf(error.suppressed) ?? codeOf(error.error);
  if (error instanceof AggregateError) return error.errors.map(codeOf).find((code) => code !== null) ?? null;
  const sqlite = "errcode" in error ? SQLITE_CODES.get(Number(error.errcode) & SQLITE_PRIMARY) : undefined;
  if (sqlite !== undefined) return sqlite;
  const known = "code" in error && typeof error.code === "string" && EXHAUSTED.has(error.code) ? error.code : null;
  if (known !== null && (known !== "EAGAIN" || isSpawn(error))) return known;
  return error.cause === undefined ? null : codeOf(error.cause);
};

/** The sentence for an error that says the host has run out of something; null for any other. */
export const exhaustionText = (error: unknown): string | null => EXHAUSTED.get(codeOf(error) ?? "") ?? null;

/** The same as the error a client is told. A ServiceError stays what it is. */
export const exhaustion = (error: unknown): ServiceError | null => {
  const text = error instanceof ServiceError ? null : exhaustionText(error);
  return text === null ? null : unavailable(text, error);
};

/** 503 ServiceUnavailableException: not now, but as it is later. */
export const unavailable = (message: string, cause?: unknown): ServiceError =>
  new ServiceError("ServiceUnavailableException", UNAVAILABLE, message, { Type: "Service" }, cause);

/** The same for what a tool of the system wrote to its standard error. */
export const toolExhaustion = (stderr: string): ServiceError | null => {
  if (/No space left on device/.test(stderr)) return unavailable(`${DISK} ${DISK_REMEDY}`);
  if (/Disk quota exceeded/.test(stderr)) return unavailable(EXHAUSTED.get("EDQUOT") ?? DISK);
  return null;
};
