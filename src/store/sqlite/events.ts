import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Claimer, EventRecord, EventStore } from "../store.ts";
import type { GroupCommit } from "./group-commit.ts";
import { eventOf } from "./rows.ts";
import type { Row } from "./rows.ts";
import { sealOf } from "./seal.ts";

const STATEMENTS = {
  insert: `INSERT INTO events (event_id, account_id, function_name, qualifier, payload, accepted_at_ms, attempts,
    throttles, trace_id, due_at_ms, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  claim: `UPDATE events SET due_at_ms = ?1, claimed_instance = ?4, claimed_incarnation = ?5 WHERE sequence IN
    (SELECT sequence FROM events WHERE due_at_ms <= ?2 ORDER BY due_at_ms, sequence LIMIT ?3) RETURNING *`,
  takeOver: `UPDATE events SET due_at_ms = ?1, throttles = throttles + 1, claimed_instance = NULL,
    claimed_incarnation = NULL WHERE claimed_instance = ?2 AND claimed_incarnation <> ?3`,
  renew: "UPDATE events SET due_at_ms = ?2 WHERE event_id = ?1",
  setAside: `UPDATE events SET due_at_ms = ${Number.MAX_SAFE_INTEGER}, claimed_instance = NULL,
    claimed_incarnation = NULL WHERE sequence = ?`,
  settle: "DELETE FROM events WHERE event_id = ?",
  retry: `UPDATE events SET due_at_ms = ?2, attempts = ?3, throttles = ?4, claimed_instance = NULL,
    claimed_incarnation = NULL WHERE event_id = ?1`,
  offset: "SELECT offset_ms AS offset FROM event_clock",
  keepOffset: "INSERT INTO event_clock (one, offset_ms) VALUES (1, ?1) ON CONFLICT DO UPDATE SET offset_ms = ?1",
  bound: "UPDATE events SET due_at_ms = ?1 WHERE due_at_ms > ?1",
  nextDue: "SELECT min(due_at_ms) AS due FROM events",
  count: "SELECT count(*) AS waiting FROM events",
  oldest: "SELECT accepted_at_ms AS accepted FROM events ORDER BY sequence LIMIT 1",
} as const;

type Statements = Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;

const prepareAll = (database: DatabaseSync): Statements =>
  // The keys are those of STATEMENTS, which the type of fromEntries cannot say.
  Object.fromEntries(Object.entries(STATEMENTS).map(([name, sql]) => [name, database.prepare(sql)])) as Statements;

/** Of what never changes in an event. */
export const sealOfEvent = (event: EventRecord): number =>
  sealOf(
    event.eventId,
    event.accountId,
    event.functionName,
    event.qualifier,
    event.payload,
    event.acceptedAtMs,
    event.traceId,
  );

/** The queue of asynchronous invocations in SQLite. */
export class SqliteEvents implements EventStore {
  readonly #sql: Statements;
  readonly #writes: GroupCommit;
  readonly #onDamage: (message: string) => void;

  constructor(database: DatabaseSync, writes: GroupCommit, onDamage: (message: string) => void) {
    this.#sql = prepareAll(database);
    this.#writes = writes;
    this.#onDamage = onDamage;
  }

  async eventOffsetMs(): Promise<number> {
    return Number(this.#sql.offset.get()?.["offset"] ?? 0);
  }

  keepEventOffset(offsetMs: number): Promise<void> {
    return this.#writes.run(() => void this.#sql.keepOffset.run(offsetMs));
  }

  boundEvents(latestMs: number): Promise<void> {
    return this.#writes.run(() => void this.#sql.bound.run(latestMs));
  }

  enqueue(event: EventRecord): Promise<void> {
    return this.#writes.run(() => {
      this.#sql.insert.run(
        event.eventId,
        event.accountId,
        event.functionName,
        event.qualifier,
        event.payload,
        event.acceptedAtMs,
        event.attempts,
        event.throttles,
        event.traceId,
        event.acceptedAtMs,
        sealOfEvent(event),
      );
    });
  }

  async claim(count: number, nowMs: number, leaseMs: number, claimer: Claimer): Promise<readonly EventRecord[]> {
    const { instance, incarnation } = claimer;
    const rows = await this.#writes.run(() =>
      this.#sql.claim.all(nowMs + leaseMs, nowMs, count, instance, incarnation),
    );
    // RETURNING gives rows in no particular order: oldest first is what a queue means.
    rows.sort((a, b) => Number(a["sequence"]) - Number(b["sequence"]));
    const whole = rows.filter((row) => row["seal"] === sealOfEvent(eventOf(row)));
    if (whole.length < rows.length) await this.#setAside(rows.filter((row) => !whole.includes(row)));
    return whole.map(eventOf);
  }

  /** Damaged events stay where they are, and are not run: what they ask for is not what was accepted. */
  #setAside(rows: readonly Row[]): Promise<void> {
    for (const row of rows) {
      this.#onDamage(
        `The event ${String(row["event_id"])} for ${String(row["function_name"])} is damaged; it is not run.`,
      );
    }
    return this.#writes.run(() => {
      for (const row of rows) this.#sql.setAside.run(row["sequence"] ?? null);
    });
  }

  takeOver({ instance, incarnation }: Claimer, nowMs: number): Promise<number> {
    return this.#writes.run(() => Number(this.#sql.takeOver.run(nowMs, instance, incarnation).changes));
  }

  renew(eventIds: readonly string[], untilMs: number): Promise<void> {
    return this.#writes.run(() => {
      for (const eventId of eventIds) this.#sql.renew.run(eventId, untilMs);
    });
  }

  settle(eventId: string): Promise<void> {
    return this.#writes.run(() => void this.#sql.settle.run(eventId));
  }

  retry(event: EventRecord, dueAtMs: number): Promise<void> {
    return this.#writes.run(() => {
      this.#sql.retry.run(event.eventId, dueAtMs, event.attempts, event.throttles);
    });
  }

  async nextDueMs(): Promise<number | null> {
    const due = this.#sql.nextDue.get()?.["due"];
    return due === null || due === undefined ? null : Number(due);
  }

  async backlog(): Promise<{ readonly waiting: number; readonly oldestAcceptedAtMs: number | null }> {
    const oldest = this.#sql.oldest.get()?.["accepted"];
    return {
      waiting: Number(this.#sql.count.get()?.["waiting"] ?? 0),
      oldestAcceptedAtMs: oldest === undefined ? null : Number(oldest),
    };
  }
}
