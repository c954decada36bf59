import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Claimer, EventRecord, EventStore, QueuedFunction } from "../store.ts";
import type { GroupCommit } from "./group-commit.ts";
import { eventOf } from "./rows.ts";
import type { Row } from "./rows.ts";
import { sealOf } from "./seal.ts";

/** When an event that is set aside is due. */
const SET_ASIDE_MS = Number.MAX_SAFE_INTEGER;

const STATEMENTS = {
  insert: `INSERT INTO events (event_id, account_id, function_name, qualifier, payload, accepted_at_ms, attempts,
    throttles, trace_id, due_at_ms, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  claim: `UPDATE events SET due_at_ms = ?1, claimed_instance = ?4, claimed_incarnation = ?5 WHERE sequence IN
    (SELECT sequence FROM events WHERE account_id = ?6 AND function_name = ?7 AND due_at_ms <= ?2
      ORDER BY due_at_ms, sequence LIMIT ?3) RETURNING *`,
  nextOf: "SELECT min(due_at_ms) AS due FROM events WHERE account_id = ? AND function_name = ?",
  // Two steps, because one comparison of both columns reads all events of the function before.
  nextFunction: `SELECT account_id, function_name, due_at_ms FROM events WHERE account_id = ? AND function_name > ?
    ORDER BY function_name, due_at_ms LIMIT 1`,
  nextAccount: `SELECT account_id, function_name, due_at_ms FROM events WHERE account_id > ?
    ORDER BY account_id, function_name, due_at_ms LIMIT 1`,
  takeOver: `UPDATE events SET due_at_ms = ?1, throttles = throttles + 1, claimed_instance = NULL,
    claimed_incarnation = NULL WHERE claimed_instance = ?2 AND claimed_incarnation <> ?3`,
  renew: "UPDATE events SET due_at_ms = ?2 WHERE event_id = ?1",
  setAside: `UPDATE events SET due_at_ms = ${SET_ASIDE_MS}, claimed_instance = NULL,
    claimed_incarnation = NULL WHERE sequence = ?`,
  settle: "DELETE FROM events WHERE event_id = ? RETURNING account_id, function_name",
  retry: `UPDATE events SET due_at_ms = ?2, attempts = ?3, throttles = ?4, claimed_instance = NULL,
    claimed_incarnation = NULL WHERE event_id = ?1`,
  offset: "SELECT offset_ms AS offset FROM event_clock",
  keepOffset: "INSERT INTO event_clock (one, offset_ms) VALUES (1, ?1) ON CONFLICT DO UPDATE SET offset_ms = ?1",
  bound: `UPDATE events SET due_at_ms = ?1 WHERE sequence IN (SELECT sequence FROM events INDEXED BY events_by_function
    WHERE due_at_ms > ?1 AND due_at_ms < ${SET_ASIDE_MS})`,
  counts: "SELECT account_id, function_name, count(*) AS waiting FROM events GROUP BY account_id, function_name",
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

const functionOf = (row: Row): QueuedFunction => ({
  accountId: String(row["account_id"]),
  functionName: String(row["function_name"]),
});

/**
 * How many events each function has. Counting them anew reads an index from end to end, which a queue of a million events
 * does not allow with every look at the metrics. They are counted once, when the database is opened, and kept from then on.
 */
class Counts {
  readonly #byFunction: Map<string, QueuedFunction & { waiting: number }> = new Map();
  #total = 0;

  get total(): number {
    return this.#total;
  }

  add({ accountId, functionName }: QueuedFunction, count: number): void {
    const key = `${accountId}:${functionName}`;
    const waiting = (this.#byFunction.get(key)?.waiting ?? 0) + count;
    this.#total += count;
    if (waiting === 0) this.#byFunction.delete(key);
    else this.#byFunction.set(key, { accountId, functionName, waiting });
  }

  busiest(count: number): (QueuedFunction & { readonly waiting: number })[] {
    return [...this.#byFunction.values()].sort((a, b) => b.waiting - a.waiting).slice(0, count);
  }
}

/** The queue of asynchronous invocations in SQLite. On a full disk no event comes in, and those that are in go on. */
export class SqliteEvents implements EventStore {
  readonly #sql: Statements;
  readonly #writes: GroupCommit;
  readonly #onDamage: (message: string) => void;
  readonly #counts: Counts = new Counts();

  constructor(database: DatabaseSync, writes: GroupCommit, onDamage: (message: string) => void) {
    this.#sql = prepareAll(database);
    this.#writes = writes;
    this.#onDamage = onDamage;
    for (const row of this.#sql.counts.iterate()) this.#counts.add(functionOf(row), Number(row["waiting"]));
  }

  async eventOffsetMs(): Promise<number> {
    return Number(this.#sql.offset.get()?.["offset"] ?? 0);
  }

  keepEventOffset(offsetMs: number): Promise<void> {
    return this.#writes.runOnReserve(() => void this.#sql.keepOffset.run(offsetMs));
  }

  boundEvents(latestMs: number): Promise<void> {
    return this.#writes.runOnReserve(() => void this.#sql.bound.run(latestMs));
  }

  async enqueue(event: EventRecord): Promise<void> {
    await this.#writes.run(() => {
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
    this.#counts.add(event, 1);
  }

  async claim(
    { accountId, functionName }: QueuedFunction,
    { count, nowMs, leaseMs }: { readonly count: number; readonly nowMs: number; readonly leaseMs: number },
    { instance, incarnation }: Claimer,
  ): Promise<{ readonly events: readonly EventRecord[]; readonly nextDueMs: number | null }> {
    return this.#writes.runOnReserve(() => {
      const rows = this.#sql.claim.all(nowMs + leaseMs, nowMs, count, instance, incarnation, accountId, functionName);
      // RETURNING gives rows in no particular order: oldest first is what a queue means.
      rows.sort((a, b) => Number(a["sequence"]) - Number(b["sequence"]));
      const events = rows.filter((row) => this.#isWhole(row)).map(eventOf);
      const due = this.#sql.nextOf.get(accountId, functionName)?.["due"];
      return { events, nextDueMs: due === null || due === undefined ? null : Number(due) };
    });
  }

  /** A damaged event stays where it is, and is not run: what it asks for is not what was accepted. */
  #isWhole(row: Row): boolean {
    if (row["seal"] === sealOfEvent(eventOf(row))) return true;
    this.#onDamage(
      `The event ${String(row["event_id"])} for ${String(row["function_name"])} is damaged; it is not run.`,
    );
    this.#sql.setAside.run(row["sequence"] ?? null);
    return false;
  }

  async queuedFunctions(
    after: QueuedFunction | null,
    count: number,
  ): Promise<readonly (QueuedFunction & { readonly dueMs: number })[]> {
    const found: (QueuedFunction & { readonly dueMs: number })[] = [];
    let last = after ?? { accountId: "", functionName: "" };
    while (found.length < count) {
      const row = this.#functionAfter(last);
      if (row === undefined) break;
      last = functionOf(row);
      found.push({ ...last, dueMs: Number(row["due_at_ms"]) });
    }
    return found;
  }

  /** The event that is due first of the next function by name. */
  #functionAfter({ accountId, functionName }: QueuedFunction): Row | undefined {
    return this.#sql.nextFunction.get(accountId, functionName) ?? this.#sql.nextAccount.get(accountId);
  }

  takeOver({ instance, incarnation }: Claimer, nowMs: number): Promise<number> {
    return this.#writes.runOnReserve(() => Number(this.#sql.takeOver.run(nowMs, instance, incarnation).changes));
  }

  renew(eventIds: readonly string[], untilMs: number): Promise<void> {
    return this.#writes.runOnReserve(() => {
      for (const eventId of eventIds) this.#sql.renew.run(eventId, untilMs);
    });
  }

  async settle(eventId: string): Promise<void> {
    const row = await this.#writes.runOnReserve(() => this.#sql.settle.get(eventId));
    if (row !== undefined) this.#counts.add(functionOf(row), -1);
  }

  retry(event: EventRecord, dueAtMs: number): Promise<void> {
    return this.#writes.runOnReserve(() => {
      this.#sql.retry.run(event.eventId, dueAtMs, event.attempts, event.throttles);
    });
  }

  async nextDueMs(): Promise<number | null> {
    let next: number | null = null;
    let last = { accountId: "", functionName: "" };
    for (;;) {
      const row = this.#functionAfter(last);
      if (row === undefined) return next;
      last = functionOf(row);
      next = Math.min(next ?? Number.POSITIVE_INFINITY, Number(row["due_at_ms"]));
    }
  }

  async backlog(): Promise<{ readonly waiting: number; readonly oldestAcceptedAtMs: number | null }> {
    const oldest = this.#sql.oldest.get()?.["accepted"];
    return {
      waiting: this.#counts.total,
      oldestAcceptedAtMs: oldest === undefined ? null : Number(oldest),
    };
  }

  async busiestFunctions(count: number): Promise<readonly (QueuedFunction & { readonly waiting: number })[]> {
    return this.#counts.busiest(count);
  }
}
