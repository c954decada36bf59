/*
 * Every file of a data directory, damaged in every way: missing, empty, cut, with a flipped bit, an older copy. What opens
 * it must refuse by name, or serve right: never less or other than there was without a word, and nothing that cannot be
 * remade may be gone afterwards. `HEARTH_SWEEP_BITS` flips so many bits of each file (4 by default; code, which is named by its checksum, one), `HEARTH_SEED`
 * draws others.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock } from "../../src/lib/clock.ts";
import { seededRandom } from "../../src/lib/random.ts";
import { sampleEvent, sampleRecord } from "../../src/store/conformance.ts";
import { openCodeStore } from "../../src/store/code/file-code-store.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite.ts";
import type { EventRecord, FunctionRecord } from "../../src/store/store.ts";
import { zipOf } from "../functional/functions.ts";

const BITS = Number(process.env["HEARTH_SWEEP_BITS"] ?? "4");
const SEED = Number(process.env["HEARTH_SEED"] ?? "1");
const ACCOUNT = "123456789012";
const CLAIMER = { instance: "one", incarnation: "first" };
const LONG_AGO_S = 1_000_000_000;
const FAR_AHEAD_MS = 10_000_000_000_000;

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

interface Original extends Disposable {
  /** As a Hearth leaves it that is killed, and that is stopped; and as it was in between. */
  readonly killed: string;
  readonly stopped: string;
  readonly older: string;
  readonly records: readonly FunctionRecord[];
  readonly events: readonly EventRecord[];
  /** SHA-256 of each image, by digest. */
  readonly images: ReadonlyMap<string, string>;
}

const makeOriginal = async (): Promise<Original> => {
  const room = mkdtempSync(join(tmpdir(), "hearth-sweep-"));
  const [live, killed, stopped, older] = ["live", "killed", "stopped", "older"].map((name) => join(room, name)) as [
    string,
    string,
    string,
    string,
  ];
  const code = await openCodeStore(live, systemClock);
  const store = openSqliteStore(join(live, "hearth.db"), systemClock);
  const images = new Map<string, string>();
  const events: EventRecord[] = [];
  const add = async (name: string): Promise<void> => {
    using stored = await code.put(await zipOf({ "index.js": `exports.handler = "${name}"` }));
    images.set(stored.digest, sha256(readFileSync(stored.imagePath)));
    const named = { digest: stored.digest, sha256Base64: "", bytes: stored.zipBytes };
    const record = sampleRecord(name, { code: named, environment: { NAME: `secret of ${name}` } });
    await store.createFunction(record, { team: name });
    await store.publishVersion(record, record.revisionId);
    await store.setReservedConcurrency(ACCOUNT, name, 5, 100);
    for (let n = 0; n < 3; n += 1) {
      const event = sampleEvent({ functionName: name, payload: Buffer.from(`{"of":"${name}","n":${n}}`) });
      events.push(event);
      await store.enqueue(event);
    }
  };
  for (const name of ["one", "two"]) await add(name);
  cpSync(live, older, { recursive: true, preserveTimestamps: true });
  await add("three");
  cpSync(live, killed, { recursive: true, preserveTimestamps: true });
  const { items } = await store.listFunctions(ACCOUNT, { marker: null, items: 99, allVersions: true });
  await store[Symbol.asyncDispose]();
  cpSync(live, stopped, { recursive: true, preserveTimestamps: true });
  return {
    killed,
    stopped,
    older,
    records: items,
    events,
    images,
    [Symbol.dispose]: () => rmSync(room, { recursive: true }),
  };
};

/** Everything that is queued, as the queue itself finds it. */
const claimAll = async (store: ReturnType<typeof openSqliteStore>): Promise<readonly EventRecord[]> => {
  const events: EventRecord[] = [];
  for (const of of await store.queuedFunctions(null, 99)) {
    const claimed = await store.claim(of, { count: 99, nowMs: FAR_AHEAD_MS, leaseMs: 1 }, CLAIMER);
    events.push(...claimed.events);
  }
  return events;
};

/** Opens a damaged directory as Hearth does at its start, and judges it. Returns how it went, in one word. */
const judge = async (directory: string, original: Original): Promise<"refused" | "told" | "right"> => {
  const told: string[] = [];
  const tell = (message: string): void => void told.push(message);
  let store: ReturnType<typeof openSqliteStore>;
  try {
    store = openSqliteStore(join(directory, "hearth.db"), systemClock, { onDamage: tell });
  } catch (error) {
    assert.ok(error instanceof Error && error.name === "StoreOpenError", `refused without a name: ${String(error)}`);
    assert.match(error.message, /hearth\.(db|mark)/);
    return "refused";
  }
  try {
    const code = await openCodeStore(directory, systemClock, tell);
    for (const expected of original.records) {
      const { functionName, version } = expected;
      const found = await store.getFunction(ACCOUNT, functionName, version);
      assert.ok(found !== null, `${functionName}:${version} is gone without a word`);
      if (found.state === "Failed") assert.notEqual(found.stateReason ?? "", "");
      else {
        assert.deepEqual(found, expected);
        assert.deepEqual(await store.getTags(ACCOUNT, functionName), { team: functionName });
        assert.equal(await store.getReservedConcurrency(ACCOUNT, functionName), 5);
      }
      const image = await code.get(expected.code.digest);
      if (image === null) assert.match(code.problem(expected.code.digest) ?? "", /\S/);
      else assert.equal(sha256(readFileSync(image.imagePath)), original.images.get(expected.code.digest));
    }
    const events = new Map((await claimAll(store)).map((event) => [event.eventId, event]));
    for (const event of original.events) {
      const found = events.get(event.eventId);
      if (found === undefined)
        assert.match(told.join(), /The event .* is damaged/, `the event ${event.eventId} is gone`);
      else assert.deepEqual(Buffer.from(found.payload), Buffer.from(event.payload));
    }
    assert.ok(events.size <= original.events.length);
    // As long after as collecting takes anything at all.
    for (const name of readdirSync(join(directory, "code")))
      utimesSync(join(directory, "code", name), LONG_AGO_S, LONG_AGO_S);
    await store.digestsInUse().then((digests) => code.collect(digests), tell);
  } finally {
    await store[Symbol.asyncDispose]();
  }
  return told.length > 0 ? "told" : "right";
};

const filesOf = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name).slice(directory.length + 1))
    .sort();

type Damage = (path: string, name: string) => void;

const damagesOf = (
  bytes: number,
  older: string,
  bits: number,
  random: () => number,
): Readonly<Record<string, Damage>> => {
  const flips = Array.from({ length: bytes === 0 ? 0 : bits }, () => Math.floor(random() * bytes * 8));
  return {
    missing: (path) => rmSync(path),
    empty: (path) => truncateSync(path),
    "cut in half": (path) => truncateSync(path, bytes >> 1),
    "cut by a byte": (path) => truncateSync(path, Math.max(0, bytes - 1)),
    "an older copy": (path, name) => {
      rmSync(path);
      cpSync(join(older, name), path, { force: true, errorOnExist: false });
    },
    ...Object.fromEntries(
      flips.map((bit) => [
        `bit ${bit} flipped`,
        (path: string): void => {
          const content = readFileSync(path);
          content[bit >> 3] = (content[bit >> 3] ?? 0) ^ (1 << (bit & 7));
          rmSync(path);
          writeFileSync(path, content);
        },
      ]),
    ),
  };
};

describe("a damaged data directory", () => {
  it("is refused by name or served right, and loses nothing", async (t) => {
    using original = await makeOriginal();
    const random = seededRandom(SEED);
    const outcomes = new Map<string, number>();
    for (const state of ["killed", "stopped"] as const) {
      for (const name of filesOf(original[state])) {
        const { size } = statSync(join(original[state], name));
        for (const [way, damage] of Object.entries(
          damagesOf(size, original.older, name.startsWith("code/") ? 1 : BITS, random),
        )) {
          if (way === "an older copy" && !filesOf(original.older).includes(name)) continue;
          const room = mkdtempSync(join(tmpdir(), "hearth-swept-"));
          try {
            const directory = join(room, "data");
            cpSync(original[state], directory, { recursive: true, preserveTimestamps: true });
            damage(join(directory, name), name);
            const left = filesOf(directory).filter((file) => file.endsWith(".zip"));
            const outcome = await judge(directory, original);
            const after = new Set(filesOf(directory).map((file) => file.replace(/^.*\//, "")));
            for (const file of left) assert.ok(after.has(file.replace(/^.*\//, "")), `${file} was deleted`);
            outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
          } catch (error) {
            throw new Error(`${state}: ${name}, ${way} (HEARTH_SEED=${SEED}): ${String(error)}`, { cause: error });
          } finally {
            rmSync(room, { recursive: true });
          }
        }
      }
    }
    t.diagnostic([...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(", "));
    assert.ok(
      (outcomes.get("refused") ?? 0) > 0 && (outcomes.get("told") ?? 0) > 0 && (outcomes.get("right") ?? 0) > 0,
    );
  });
});
