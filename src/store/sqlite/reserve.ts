import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, statfsSync, writeSync } from "node:fs";
import { randomBytes } from "node:crypto";
import type { Clock, Timer } from "../../lib/clock.ts";

const MIB = 1024 * 1024;
/**
 * Hearth's own. A deletion or a settled event takes a few pages of the write-ahead log, and SQLite begins the log anew
 * once its 1,000 pages of 4 KiB (PRAGMA wal_autocheckpoint, by default) are in the database: 4 MiB for a log that was
 * short when the disk became full, as much for what the log holds that the database must still grow by, and both twice,
 * since one commit of many large events may make the log longer than that.
 */
export const RESERVE_BYTES_MAX: number = 16 * MIB;
/** Of a small disk no more than this, in whole pieces. */
const RESERVE_DISK_SHARE = 1 / 16;
/** The reserve is given up piece by piece, so that who fills the disk gets what is left of one piece at most. */
const PIECE_BYTES: number = MIB / 4;
/** How often is looked whether there is room to set aside what is missing. */
const LOOK_MS = 1_000;

export interface ReserveParts {
  readonly clock: Clock;
  /** Told when the reserve is used and when it is whole again, and when there can be none. */
  readonly tell: (message: string) => void;
}

/** What a GroupCommit needs of a reserve. */
export interface SpaceReserve {
  /** Whether part of the reserve is in use: what is free on the disk then is not for writes that make the database grow. */
  readonly isInUse: boolean;
  /** Frees one more piece for the database. False when nothing is left. */
  giveUp(): boolean;
}

/** Of a database that is not on a disk. */
export const noReserve: SpaceReserve = { isInUse: false, giveUp: () => false };

/**
 * Room on the disk that is set aside in a file beside the database, for writes that must not fail when somebody has filled
 * the disk: those that delete, and those that say what became of an event. It is set aside when there is plenty of
 * room, piece by piece, and again after it was used. A file that cannot be had is told, and is no reason not to start.
 */
export class Reserve implements SpaceReserve, Disposable {
  readonly #parts: ReserveParts;
  readonly #path: string;
  readonly #descriptor: number | null;
  #timer: Timer | null = null;
  #isInUse = false;

  constructor(path: string, parts: ReserveParts) {
    this.#path = path;
    this.#parts = parts;
    this.#descriptor = this.#open();
    if (this.#descriptor !== null) this.#lookLater();
  }

  get isInUse(): boolean {
    return this.#isInUse;
  }

  giveUp(): boolean {
    if (!this.#shrink()) return false;
    if (!this.#isInUse) {
      this.#parts.tell(
        "The disk is full. Deletions and events that have run take the reserve of the database; nothing new is accepted " +
          "until there is room again. Free some: remove functions or logs.",
      );
    }
    this.#isInUse = true;
    this.#lookLater();
    return true;
  }

  #shrink(): boolean {
    if (this.#descriptor === null) return false;
    try {
      const { size } = fstatSync(this.#descriptor);
      if (size === 0) return false;
      ftruncateSync(this.#descriptor, Math.max(0, size - PIECE_BYTES));
      // Some file systems give room back only once its release is on the disk.
      fsyncSync(this.#descriptor);
      return true;
    } catch {
      // A disk that fails has no room to give; the write that asked says so.
      return false;
    }
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    if (this.#descriptor !== null) closeSync(this.#descriptor);
  }

  #open(): number | null {
    try {
      const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
      return openSync(this.#path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    } catch (error) {
      this.#parts.tell(
        `There is no reserve for a full disk, since ${this.#path} cannot be opened: ${error instanceof Error ? error.message : String(error)}`,
      );
      return null;
    }
  }

  #wantedBytes(): number {
    const { blocks, bsize } = statfsSync(this.#path);
    return Math.ceil(Math.min(RESERVE_BYTES_MAX, blocks * bsize * RESERVE_DISK_SHARE) / PIECE_BYTES) * PIECE_BYTES;
  }

  #bytes(): number {
    return this.#descriptor === null ? 0 : fstatSync(this.#descriptor).size;
  }

  #lookLater(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = this.#parts.clock.after(LOOK_MS, () => this.#look());
  }

  #look(): void {
    try {
      const wanted = this.#wantedBytes();
      const lacking = wanted - this.#bytes();
      const { bavail, bsize } = statfsSync(this.#path);
      // As much again must be left, so that the reserve itself does not fill the disk.
      if (lacking > 0 && bavail * bsize < wanted + lacking) return this.#lookLater();
      if (lacking > 0) this.#setAside(Math.min(PIECE_BYTES, lacking));
      if (lacking > PIECE_BYTES) this.#timer = this.#parts.clock.soon(() => this.#look());
      else this.#whole();
    } catch {
      // The disk became full meanwhile, or is failing, which its other users tell better.
      this.#lookLater();
    }
  }

  #setAside(bytes: number): void {
    if (this.#descriptor === null) return;
    // Random, since a file system may store a run of zeros in no room at all.
    const written = writeSync(this.#descriptor, randomBytes(bytes), 0, bytes, this.#bytes());
    if (written < bytes) throw new Error(`${this.#path} took ${written} of ${bytes} bytes`);
  }

  #whole(): void {
    if (this.#isInUse)
      this.#parts.tell("There is room on the disk again, and the reserve of the database is set aside.");
    this.#isInUse = false;
  }
}
