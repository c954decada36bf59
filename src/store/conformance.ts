import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import type { Claimer, EventRecord, FunctionRecord, Store } from "./store.ts";

const ACCOUNT = "123456789012";
const CLAIMER: Claimer = { instance: "one", incarnation: "first" };

export const sampleRecord = (functionName: string, changes: Partial<FunctionRecord> = {}): FunctionRecord => ({
  accountId: ACCOUNT,
  region: "us-east-1",
  functionName,
  version: "$LATEST",
  revisionId: randomUUID(),
  runtime: "nodejs24.x",
  handler: "index.handler",
  role: "arn:aws:iam::123456789012:role/lambda",
  description: "",
  memoryMb: 128,
  timeoutS: 3,
  ephemeralMb: 512,
  environment: { NAME: "völlig\u0000 egal" },
  architectures: ["x86_64"],
  code: { digest: "a".repeat(64), sha256Base64: "qqqq", bytes: 1_000 },
  layers: [],
  logging: { format: "Text", group: `/aws/lambda/${functionName}`, applicationLevel: null, systemLevel: null },
  tracingMode: "PassThrough",
  state: "Active",
  stateReason: null,
  stateReasonCode: null,
  lastUpdateStatus: "Successful",
  lastUpdateStatusReason: null,
  lastUpdateStatusReasonCode: null,
  lastModifiedMs: 1_700_000_000_000,
  extra: { VpcConfig: { SubnetIds: ["subnet-1"] } },
  ...changes,
});

export const sampleEvent = (changes: Partial<EventRecord> = {}): EventRecord => ({
  eventId: randomUUID(),
  accountId: ACCOUNT,
  functionName: "f",
  qualifier: "$LATEST",
  payload: Buffer.from('{"n":1}'),
  acceptedAtMs: 1_000,
  attempts: 0,
  throttles: 0,
  traceId: null,
  ...changes,
});

const claim = async (
  store: Store,
  count: number,
  nowMs: number,
  leaseMs: number,
  claimer: Claimer,
  functionName: string = "f",
): Promise<readonly EventRecord[]> =>
  (await store.claim({ accountId: ACCOUNT, functionName }, { count, nowMs, leaseMs }, claimer)).events;

const waitingOf = (functionName: string, count: number): object => ({
  accountId: ACCOUNT,
  functionName,
  waiting: count,
});

/** A place a store is kept in: opened again, it holds what was durable before. */
export interface StorePlace extends AsyncDisposable {
  open(): Promise<Store>;
}

const names = (records: readonly FunctionRecord[]): string[] =>
  records.map((record) => `${record.functionName}:${record.version}`);

const functionSuite = (place: () => Promise<StorePlace>): void => {
  it("keeps a function as it was given, and refuses a second one of its name", async () => {
    await using at = await place();
    await using store = await at.open();
    const record = sampleRecord("f");
    await store.createFunction(record, { team: "blue" });
    assert.deepEqual(await store.getFunction(ACCOUNT, "f", "$LATEST"), record);
    assert.deepEqual(await store.getTags(ACCOUNT, "f"), { team: "blue" });
    await assert.rejects(store.createFunction(sampleRecord("f"), {}), { name: "ResourceConflictException" });
    assert.deepEqual(await store.getFunction(ACCOUNT, "f", "$LATEST"), record);
    assert.equal(await store.getFunction("999999999999", "f", "$LATEST"), null);
    assert.equal(await store.getFunction(ACCOUNT, "f", "no-version"), null);
  });

  it("lets one of two concurrent changes win", async () => {
    await using at = await place();
    await using store = await at.open();
    const first = sampleRecord("f");
    await store.createFunction(first, {});
    const changes = [sampleRecord("f", { memoryMb: 129 }), sampleRecord("f", { memoryMb: 130 })];
    const won = await Promise.all(changes.map((change) => store.updateFunction(change, first.revisionId)));
    assert.equal(won.filter(Boolean).length, 1);
    assert.deepEqual(await store.getFunction(ACCOUNT, "f", "$LATEST"), changes[won.indexOf(true)]);
    assert.equal(await store.updateFunction(sampleRecord("missing"), first.revisionId), false);
  });

  it("never gives a version number twice, not even after deletion", async () => {
    await using at = await place();
    await using store = await at.open();
    const record = sampleRecord("f");
    await store.createFunction(record, {});
    const published = await Promise.all([
      store.publishVersion(record, record.revisionId),
      store.publishVersion(record, record.revisionId),
    ]);
    assert.deepEqual(
      published.map((p) => p?.version),
      ["1", "2"],
    );
    assert.equal(await store.deleteFunction(ACCOUNT, "f", "2"), true);
    assert.equal(await store.deleteFunction(ACCOUNT, "f", "2"), false);
    assert.equal((await store.publishVersion(record, record.revisionId))?.version, "3");
    assert.equal(await store.deleteFunction(ACCOUNT, "f", null), true);
    assert.equal(await store.publishVersion(record, record.revisionId), null);
    assert.equal(await store.changeTags(ACCOUNT, "f", { a: "1" }, []), false);
    await store.createFunction(record, {});
    assert.equal((await store.publishVersion(record, record.revisionId))?.version, "4");
    assert.deepEqual(names((await store.listVersions(ACCOUNT, "f", { marker: null, items: 9 })).items), [
      "f:$LATEST",
      "f:4",
    ]);
  });

  it("publishes nothing of a $LATEST that was changed, or deleted and made anew", async () => {
    await using at = await place();
    await using store = await at.open();
    const [first, second, another] = [sampleRecord("f"), sampleRecord("f"), sampleRecord("f")];
    await store.createFunction(first, {});
    await store.updateFunction(second, first.revisionId);
    assert.equal(await store.publishVersion(first, first.revisionId), null);
    await store.deleteFunction(ACCOUNT, "f", null);
    await store.createFunction(another, {});
    assert.equal(await store.publishVersion(second, second.revisionId), null);
    assert.equal((await store.publishVersion(another, another.revisionId))?.version, "1");
  });

  it("deletes a function with its versions, tags and reserved concurrency", async () => {
    await using at = await place();
    await using store = await at.open();
    const record = sampleRecord("f");
    await store.createFunction(record, { team: "blue" });
    await store.publishVersion(record, record.revisionId);
    await store.setReservedConcurrency(ACCOUNT, "f", 5, 100);
    assert.equal(await store.deleteFunction(ACCOUNT, "f", "$LATEST"), false);
    assert.equal(await store.deleteFunction(ACCOUNT, "f", null), true);
    assert.equal(await store.deleteFunction(ACCOUNT, "f", null), false);
    assert.equal(await store.getFunction(ACCOUNT, "f", "1"), null);
    assert.equal(await store.getTags(ACCOUNT, "f"), null);
    await store.createFunction(record, {});
    assert.deepEqual(await store.getTags(ACCOUNT, "f"), {});
    assert.equal(await store.getReservedConcurrency(ACCOUNT, "f"), null);
  });

  it("pages stay in place while functions come and go", async () => {
    await using at = await place();
    await using store = await at.open();
    for (const name of ["b", "d", "f", "h"]) await store.createFunction(sampleRecord(name), {});
    const options = { items: 2, allVersions: false };
    const first = await store.listFunctions(ACCOUNT, { ...options, marker: null });
    assert.deepEqual(names(first.items), ["b:$LATEST", "d:$LATEST"]);
    await store.createFunction(sampleRecord("a"), {});
    await store.createFunction(sampleRecord("e"), {});
    await store.deleteFunction(ACCOUNT, "d", null);
    const second = await store.listFunctions(ACCOUNT, { ...options, marker: first.nextMarker });
    assert.deepEqual(names(second.items), ["e:$LATEST", "f:$LATEST"]);
    const third = await store.listFunctions(ACCOUNT, { ...options, marker: second.nextMarker });
    assert.deepEqual(names(third.items), ["h:$LATEST"]);
    assert.equal(third.nextMarker, null);
    const wrong = store.listFunctions(ACCOUNT, { ...options, marker: "%%%" });
    await assert.rejects(wrong, { name: "InvalidParameterValueException" });
  });

  it("lists versions by number, across pages", async () => {
    await using at = await place();
    await using store = await at.open();
    const record = sampleRecord("f");
    await store.createFunction(record, {});
    await store.createFunction(sampleRecord("g"), {});
    for (let n = 0; n < 10; n += 1) await store.publishVersion(record, record.revisionId);
    const seen: string[] = [];
    let marker: string | null = null;
    do {
      const page = await store.listVersions(ACCOUNT, "f", { marker, items: 4 });
      seen.push(...page.items.map((item) => item.version));
      marker = page.nextMarker;
    } while (marker !== null);
    assert.deepEqual(seen, ["$LATEST", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    const all = await store.listFunctions(ACCOUNT, { marker: null, items: 99, allVersions: true });
    assert.equal(all.items.length, 12);
    assert.equal(names(all.items).at(-1), "g:$LATEST");
  });

  it("changes tags, counts usage, and knows the code in use", async () => {
    await using at = await place();
    await using store = await at.open();
    const layers = [{ arn: "arn:layer", digest: "c".repeat(64), bytes: 5 }];
    const record = sampleRecord("f", { layers });
    await store.createFunction(record, { a: "1", b: "2" });
    await store.publishVersion({ ...record, code: { ...record.code, digest: "b".repeat(64) } }, record.revisionId);
    await store.changeTags(ACCOUNT, "f", { b: "3", c: "4" }, ["a", "nothing"]);
    assert.deepEqual(await store.getTags(ACCOUNT, "f"), { b: "3", c: "4" });
    assert.deepEqual(await store.usage(ACCOUNT), { functions: 1, codeBytes: 2_000 });
    assert.deepEqual(await store.usage("999999999999"), { functions: 0, codeBytes: 0 });
    const expected = ["a", "b", "c"].map((letter) => letter.repeat(64));
    assert.deepEqual([...(await store.digestsInUse())].sort(), expected);
  });

  it("never reserves more concurrency than the total", async () => {
    await using at = await place();
    await using store = await at.open();
    await store.createFunction(sampleRecord("f"), {});
    await store.createFunction(sampleRecord("g"), {});
    assert.equal(await store.setReservedConcurrency(ACCOUNT, "f", 60, 100), "set");
    assert.equal(await store.setReservedConcurrency(ACCOUNT, "g", 41, 100), "exceeded");
    assert.equal(await store.setReservedConcurrency(ACCOUNT, "g", 40, 100), "set");
    assert.equal(await store.reservedConcurrency(ACCOUNT), 100);
    assert.equal(await store.setReservedConcurrency(ACCOUNT, "f", 0, 100), "set");
    assert.equal(await store.getReservedConcurrency(ACCOUNT, "f"), 0);
    assert.equal(await store.setReservedConcurrency(ACCOUNT, "f", null, 100), "set");
    assert.equal(await store.getReservedConcurrency(ACCOUNT, "f"), null);
    assert.equal(await store.setReservedConcurrency(ACCOUNT, "missing", 1, 100), "missing");
  });
};

const eventSuite = (place: () => Promise<StorePlace>): void => {
  it("gives an event to one claim only, oldest first, and again when its lease has ended", async () => {
    await using at = await place();
    await using store = await at.open();
    const events = [1_000, 1_000, 2_000].map((acceptedAtMs) => sampleEvent({ acceptedAtMs, traceId: "Root=1" }));
    for (const event of events) await store.enqueue(event);
    assert.equal(await store.nextDueMs(), 1_000);
    assert.deepEqual(await store.backlog(), { waiting: 3, oldestAcceptedAtMs: 1_000 });
    assert.deepEqual(await claim(store, 9, 999, 500, CLAIMER), []);
    const [one, two] = await Promise.all([claim(store, 1, 1_000, 500, CLAIMER), claim(store, 9, 1_000, 500, CLAIMER)]);
    assert.deepEqual(
      [...one, ...two].map((event) => event.eventId),
      events.slice(0, 2).map((event) => event.eventId),
    );
    assert.deepEqual({ ...one[0], payload: null }, { ...events[0], payload: null });
    assert.deepEqual(Buffer.from(one[0]?.payload ?? []), Buffer.from(events[0]?.payload ?? []));
    assert.deepEqual(await claim(store, 9, 1_499, 500, CLAIMER), []);
    assert.equal((await claim(store, 9, 1_500, 500, CLAIMER)).length, 2);
  });

  it("settles, renews and retries", async () => {
    await using at = await place();
    await using store = await at.open();
    const [done, long, again] = [sampleEvent(), sampleEvent(), sampleEvent()];
    for (const event of [done, long, again]) await store.enqueue(event);
    assert.equal((await claim(store, 9, 1_000, 500, CLAIMER)).length, 3);
    await store.settle(done.eventId);
    await store.renew([long.eventId], 9_000);
    await store.retry({ ...again, attempts: 1, throttles: 2 }, 5_000);
    assert.equal(await store.nextDueMs(), 5_000);
    assert.deepEqual(await claim(store, 9, 4_999, 500, CLAIMER), []);
    const [retried, ...others] = await claim(store, 9, 5_000, 500, CLAIMER);
    assert.deepEqual(others, []);
    assert.deepEqual([retried?.eventId, retried?.attempts, retried?.throttles], [again.eventId, 1, 2]);
    await store.settle(again.eventId);
    await store.settle(long.eventId);
    assert.equal(await store.nextDueMs(), null);
    assert.deepEqual(await store.backlog(), { waiting: 0, oldestAcceptedAtMs: null });
    await store.retry(again, 1);
    assert.equal(await store.nextDueMs(), null, "a settled event does not come back");
  });

  it("gives an instance that starts again what it had claimed, at once, and nobody else's", async () => {
    await using at = await place();
    await using store = await at.open();
    const [mine, others, waiting, settled, retried] = Array.from({ length: 5 }, () => sampleEvent());
    assert.ok(mine && others && waiting && settled && retried);
    await store.enqueue(others);
    await claim(store, 1, 1_000, 60_000, { instance: "two", incarnation: "first" });
    for (const event of [mine, settled, retried]) await store.enqueue(event);
    assert.equal((await claim(store, 9, 1_000, 60_000, CLAIMER)).length, 3);
    await store.enqueue({ ...waiting, acceptedAtMs: 5_000, attempts: 1 });
    await store.settle(settled.eventId);
    await store.retry({ ...retried, attempts: 1 }, 70_000);
    assert.equal(await store.takeOver(CLAIMER, 2_000), 0, "what is claimed by the same process runs");
    const again = { ...CLAIMER, incarnation: "second" };
    assert.equal(await store.takeOver(again, 2_000), 1);
    const taken = await claim(store, 9, 2_000, 60_000, again);
    assert.deepEqual(
      taken.map((event) => [event.eventId, event.attempts, event.throttles]),
      [[mine.eventId, 0, 1]],
    );
    assert.equal(await store.takeOver(again, 2_000), 0);
    assert.equal(await store.nextDueMs(), 5_000);
  });

  it("keeps how far its time is behind the wall clock, and brings back what is due too late", async () => {
    await using at = await place();
    const [late, later, soon] = [sampleEvent(), sampleEvent({ acceptedAtMs: 3_000 }), sampleEvent()];
    {
      await using store = await at.open();
      assert.equal(await store.eventOffsetMs(), 0);
      await store.keepEventOffset(-5);
      await store.keepEventOffset(3_600_000);
      for (const event of [late, later, soon]) await store.enqueue(event);
      await store.retry(late, 9_000);
      await store.retry(soon, 2_500);
    }
    await using store = await at.open();
    assert.equal(await store.eventOffsetMs(), 3_600_000);
    await store.boundEvents(3_000);
    assert.deepEqual(await claim(store, 9, 2_499, 10, CLAIMER), []);
    assert.deepEqual(
      (await claim(store, 9, 2_500, 9_000, CLAIMER)).map((event) => event.eventId),
      [soon.eventId],
    );
    assert.deepEqual(
      (await claim(store, 9, 3_000, 9_000, CLAIMER)).map((event) => [event.eventId, event.acceptedAtMs]),
      [
        [late.eventId, 1_000],
        [later.eventId, 3_000],
      ],
    );
  });

  it("keeps the functions' events apart, and says when the next of each is due", async () => {
    await using at = await place();
    await using store = await at.open();
    const give = async (functionName: string, acceptedAtMs: number): Promise<void> =>
      store.enqueue(sampleEvent({ functionName, acceptedAtMs }));
    for (let n = 0; n < 3; n += 1) await give("a", 1_000 + n);
    await give("b", 500);
    await give("A", 9_000);
    const of = (functionName: string, dueMs: number): object => ({ accountId: ACCOUNT, functionName, dueMs });
    const all = [of("A", 9_000), of("a", 1_000), of("b", 500)];
    assert.deepEqual(await store.queuedFunctions(null, 9), all);
    assert.deepEqual(await store.queuedFunctions(null, 2), all.slice(0, 2));
    assert.deepEqual(await store.queuedFunctions({ accountId: ACCOUNT, functionName: "a" }, 9), all.slice(2));
    const what = { count: 2, nowMs: 2_000, leaseMs: 60_000 };
    const claimed = await store.claim({ accountId: ACCOUNT, functionName: "a" }, what, CLAIMER);
    assert.deepEqual(
      claimed.events.map((event) => event.acceptedAtMs),
      [1_000, 1_001],
    );
    assert.equal(claimed.nextDueMs, 1_002);
    const rest = await store.claim({ accountId: ACCOUNT, functionName: "a" }, what, CLAIMER);
    assert.deepEqual([rest.events.length, rest.nextDueMs], [1, 62_000], "the first lease's end");
    const none = await store.claim({ accountId: ACCOUNT, functionName: "missing" }, what, CLAIMER);
    assert.deepEqual(none, { events: [], nextDueMs: null });
    for (const event of claimed.events) await store.settle(event.eventId);
    assert.deepEqual(await store.queuedFunctions(null, 9), [of("A", 9_000), of("a", 62_000), of("b", 500)]);
  });

  it("counts the events of every function, over restarts", async () => {
    await using at = await place();
    {
      await using store = await at.open();
      const twice = sampleEvent({ functionName: "a" });
      const outcomes = await Promise.allSettled([
        store.enqueue(twice),
        store.enqueue(twice),
        store.enqueue(sampleEvent({ functionName: "a" })),
        store.enqueue(sampleEvent({ functionName: "b" })),
      ]);
      assert.equal(outcomes.filter(({ status }) => status === "rejected").length, 1);
      assert.deepEqual(await store.busiestFunctions(9), [waitingOf("a", 2), waitingOf("b", 1)]);
      await store.settle(twice.eventId);
      await store.settle(twice.eventId);
      assert.equal((await store.backlog()).waiting, 2);
    }
    await using store = await at.open();
    assert.equal((await store.backlog()).waiting, 2);
    assert.deepEqual((await store.busiestFunctions(1)).length, 1);
    assert.deepEqual(await claim(store, 9, 1_000, 500, CLAIMER, "a").then((events) => events.length), 1);
    assert.equal((await store.backlog()).waiting, 2, "those that run count");
  });

  it("refuses a second event of the same id and keeps the others of the same moment", async () => {
    await using at = await place();
    await using store = await at.open();
    const event = sampleEvent();
    const outcomes = await Promise.allSettled([event, event, sampleEvent()].map((e) => store.enqueue(e)));
    assert.deepEqual(
      outcomes.map((outcome) => outcome.status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    assert.equal((await claim(store, 9, 1_000, 500, CLAIMER)).length, 2);
  });

  it("holds everything after it is opened again", async () => {
    await using at = await place();
    const record = sampleRecord("f");
    const event = sampleEvent({ payload: Buffer.alloc(1_000_000, 7) });
    {
      await using store = await at.open();
      await store.createFunction(record, { a: "b" });
      await store.publishVersion(record, record.revisionId);
      await store.enqueue(event);
    }
    await using store = await at.open();
    assert.deepEqual(await store.getFunction(ACCOUNT, "f", "1"), { ...record, version: "1" });
    assert.equal((await store.publishVersion(record, record.revisionId))?.version, "2");
    const [claimed] = await claim(store, 1, 1_000, 500, CLAIMER);
    assert.ok(Buffer.from(event.payload).equals(claimed?.payload ?? new Uint8Array()));
  });
};

/** What every Store must do, whatever is underneath. `place` makes a fresh, empty place to keep one in. */
export const storeConformance = (name: string, place: () => Promise<StorePlace>): void => {
  describe(`${name}: functions`, () => functionSuite(place));
  describe(`${name}: events`, () => eventSuite(place));
};
