import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Clock } from "../../lib/clock.ts";
import { DiskFullError, isDiskFull } from "./disk-full.ts";
import type { SpaceReserve } from "./reserve.ts";

interface Write {
  /** Whether the write may use the reserve of a full disk. */
  readonly mayUseReserve: boolean;
  run(): void;
  committed(): void;
  failed(error: unknown): void;
}

/**
 * Runs the writes of one turn of the event loop in one transaction, so that many of them share one wait for the disk.
 * A write that throws is undone alone. Nothing resolves before its transaction is durable.
 */
export class GroupCommit {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #reserve: SpaceReserve;
  readonly #count: StatementSync;
  readonly #changes: StatementSync;
  readonly #onCommit: (commits: number) => void;
  #waiting: Write[] = [];

  /** `onCommit` is told the number of each transaction that changed something, once it is durable. */
  constructor(
    database: DatabaseSync,
    clock: Clock,
    reserve: SpaceReserve,
    onCommit: (commits: number) => void = () => undefined,
  ) {
    this.#database = database;
    this.#clock = clock;
    this.#reserve = reserve;
    this.#onCommit = onCommit;
    this.#count = database.prepare("UPDATE commits SET count = count + 1 RETURNING count");
    this.#changes = database.prepare("SELECT total_changes() AS changes");
  }

  /** Resolves with what `write` returned once that is on the disk; rejects with what it threw. */
  run<T>(write: () => T): Promise<T> {
    return this.#add(write, false);
  }

  /**
   * The same for a write that does not make the database grow, such as one that deletes or that says what became of an
   * event: on a full disk it takes what was reserved for such writes.
   */
  runOnReserve<T>(write: () => T): Promise<T> {
    return this.#add(write, true);
  }

  #add<T>(write: () => T, mayUseReserve: boolean): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const results: T[] = [];
      this.#waiting.push({
        mayUseReserve,
        // Again from the beginning when its transaction is tried again.
        run: () => void results.splice(0, 1, write()),
        committed: () => {
          for (const result of results) resolve(result);
        },
        failed: reject,
      });
      if (this.#waiting.length === 1) this.#clock.soon(() => this.flush());
    });
  }

  /** Commits what waits, now. */
  flush(): void {
    let writes: readonly Write[] = this.#waiting;
    this.#waiting = [];
    if (this.#reserve.isInUse) writes = this.#onlyReserved(writes, new DiskFullError());
    let failure = this.#commit(writes);
    while (isDiskFull(failure)) {
      const left = this.#onlyReserved(writes, failure);
      // Without the others they may have room enough.
      if (left.length === writes.length && !this.#reserve.giveUp()) break;
      writes = left;
      failure = this.#commit(writes);
    }
    if (failure !== null) for (const write of writes) write.failed(failure);
  }

  /** Those that may use the reserve; the others fail. */
  #onlyReserved(writes: readonly Write[], failure: unknown): readonly Write[] {
    for (const write of writes) if (!write.mayUseReserve) write.failed(failure);
    return writes.filter(({ mayUseReserve }) => mayUseReserve);
  }

  /** In one transaction. Returns what that failed with, and then nothing was written and nobody told; null when it did not. */
  #commit(writes: readonly Write[]): unknown {
    if (writes.length === 0) return null;
    const done: Write[] = [];
    const refused: { readonly write: Write; readonly error: unknown }[] = [];
    let commits: number | null = null;
    try {
      this.#database.exec("BEGIN IMMEDIATE");
      const before = this.#changed();
      for (const write of writes) {
        const error = this.#runOne(write);
        if (error === null) done.push(write);
        else refused.push({ write, error });
      }
      // What changed nothing is not written, so it needs no number either.
      if (this.#changed() !== before) commits = Number(this.#count.get()?.["count"]);
      this.#database.exec("COMMIT");
    } catch (error) {
      this.#rollBack();
      return error;
    }
    // Durable, whatever becomes of what is told of it: nobody is left without an answer.
    for (const { write, error } of refused) write.failed(error);
    for (const write of done) write.committed();
    if (commits !== null) this.#onCommit(commits);
    return null;
  }

  #changed(): unknown {
    return this.#changes.get()?.["changes"];
  }

  #rollBack(): void {
    try {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
    } catch {
      // The transaction is not committed, which is what matters; the next one begins with its own error, or without.
    }
  }

  /** Returns what a write threw that is undone; null when there is nothing to undo. Throws what ends the transaction. */
  #runOne(write: Write): unknown {
    this.#database.exec("SAVEPOINT one");
    try {
      write.run();
      this.#database.exec("RELEASE one");
      return null;
    } catch (error) {
      // A full disk ends the whole transaction by itself ("Response To Errors Within A Transaction" in SQLite's manual).
      if (!this.#database.isTransaction || isDiskFull(error)) throw error;
      this.#database.exec("ROLLBACK TO one; RELEASE one");
      return error;
    }
  }
}
