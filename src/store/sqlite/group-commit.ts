import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Clock } from "../../lib/clock.ts";

interface Write {
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
  readonly #count: StatementSync;
  readonly #changes: StatementSync;
  readonly #onCommit: (commits: number) => void;
  #waiting: Write[] = [];

  /** `onCommit` is told the number of each transaction that changed something, once it is durable. */
  constructor(database: DatabaseSync, clock: Clock, onCommit: (commits: number) => void = () => undefined) {
    this.#database = database;
    this.#clock = clock;
    this.#onCommit = onCommit;
    this.#count = database.prepare("UPDATE commits SET count = count + 1 RETURNING count");
    this.#changes = database.prepare("SELECT total_changes() AS changes");
  }

  /** Resolves with what `write` returned once that is on the disk; rejects with what it threw. */
  run<T>(write: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const results: T[] = [];
      this.#waiting.push({
        run: () => void results.push(write()),
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
    const writes = this.#waiting;
    if (writes.length === 0) return;
    this.#waiting = [];
    const done: Write[] = [];
    let commits: number | null = null;
    try {
      this.#database.exec("BEGIN IMMEDIATE");
      const before = this.#changed();
      for (const write of writes) {
        if (this.#runOne(write)) done.push(write);
      }
      // What changed nothing is not written, so it needs no number either.
      if (this.#changed() !== before) commits = Number(this.#count.get()?.["count"]);
      this.#database.exec("COMMIT");
    } catch (error) {
      this.#rollBack();
      for (const write of writes) write.failed(error);
      return;
    }
    // Durable, whatever becomes of what is told of it: nobody is left without an answer.
    for (const write of done) write.committed();
    if (commits !== null) this.#onCommit(commits);
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

  #runOne(write: Write): boolean {
    this.#database.exec("SAVEPOINT one");
    try {
      write.run();
      this.#database.exec("RELEASE one");
      return true;
    } catch (error) {
      // A full disk ends the whole transaction by itself ("Response To Errors Within A Transaction" in SQLite's manual).
      if (!this.#database.isTransaction) throw error;
      this.#database.exec("ROLLBACK TO one; RELEASE one");
      write.failed(error);
      return false;
    }
  }
}
