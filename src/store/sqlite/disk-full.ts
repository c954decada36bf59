/** "Result and Error Codes" in SQLite's documentation: no room for the database or its log, or for the log's index. */
const SQLITE_FULL = 13;
const SQLITE_IOERR_SHMSIZE = 4874;

/** A write was refused because the reserve of the database is in use: what room there is is kept for others. */
export class DiskFullError extends Error {
  override readonly name = "DiskFullError";
  /** As the system says it, so that whoever tells a full disk from other failures finds this one too. */
  readonly code = "ENOSPC";

  constructor() {
    super("The disk is full; what is left of the reserve is kept for deletions and for events that have run.");
  }
}

/** Whether the database could not be written for want of space. */
export const isDiskFull = (error: unknown): boolean =>
  error instanceof DiskFullError ||
  (error instanceof Error &&
    "errcode" in error &&
    (error.errcode === SQLITE_FULL || error.errcode === SQLITE_IOERR_SHMSIZE));
