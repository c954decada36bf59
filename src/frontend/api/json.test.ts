import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { describe, it } from "node:test";
import { createSystemClock } from "../../lib/clock.ts";
import type { Clock } from "../../lib/clock.ts";
import { noTurns } from "../../lib/turn-meter.ts";
import { ServiceError } from "../../wire/errors.ts";
import { CONTROL_JSON_BYTES_MAX, PAYLOAD_BYTES_MAX, REQUEST_BODY_BYTES_MAX } from "../../wire/limits.ts";
import { archivePath, JsonReader } from "./json.ts";
import { OPERATIONS } from "./model.ts";
import type { Operation } from "./model.ts";

const MS_PER_US = 1 / 1_000;
/** What no turn of the loop may take of its CPU time. */
const TURN_CPU_MS_MAX = 50;

const operation = (name: string): Operation => {
  const found = OPERATIONS.get(name);
  assert.ok(found !== undefined);
  return found;
};
const create = operation("CreateFunction");

const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) * MS_PER_US;
};

/** The host's clock, which remembers the CPU time of the longest turn that was asked of it. */
const meteredClock = (): Pick<Clock, "soon"> & { readonly longest: () => number } => {
  const clock = createSystemClock();
  let longestMs = 0;
  return {
    soon: (callback) =>
      clock.soon(() => {
        const beganMs = cpuMs();
        const result = callback();
        longestMs = Math.max(longestMs, cpuMs() - beganMs);
        return result;
      }),
    longest: () => longestMs,
  };
};

/** Runs `read`, and says how it ended and what the longest turn took, the first (before it waits) among them. */
const measured = async (read: (reader: JsonReader) => Promise<unknown>): Promise<{ name: string; turnMs: number }> => {
  const clock = meteredClock();
  const beganMs = cpuMs();
  const reading = read(new JsonReader(clock, noTurns)).then(
    () => "fine",
    (error: unknown) => (error instanceof ServiceError ? error.name : String(error)),
  );
  const firstMs = cpuMs() - beganMs;
  const name = await reading;
  return { name, turnMs: Math.max(firstMs, clock.longest()) };
};

/** Whole units between a head and a tail, as many as fit. */
const filled = (bytes: number, unit: string, head = "", tail = ""): Buffer => {
  const units = Math.floor((bytes - head.length - tail.length) / unit.length);
  return Buffer.concat([Buffer.from(head), Buffer.alloc(units * unit.length, unit), Buffer.from(tail)]);
};

describe("JSON of clients", () => {
  it("names the archives of the operations that have one", () => {
    const paths = [...OPERATIONS.values()].flatMap(({ name, input }) => {
      const path = archivePath(input);
      return path === null ? [] : [`${name}: ${path.join(".")}`];
    });
    assert.deepEqual(paths.toSorted(), [
      "CreateFunction: Code.ZipFile",
      "PublishLayerVersion: Content.ZipFile",
      "UpdateFunctionCode: ZipFile",
    ]);
  });

  it("gives what JSON.parse gives, with the archive decoded", async () => {
    const reader = new JsonReader(createSystemClock(), noTurns);
    const zip = Buffer.from(Array.from({ length: 300_001 }, (_, at) => at % 251));
    const base64 = zip.toString("base64");
    const text = JSON.stringify({
      FunctionName: "f",
      Code: { ZipFile: base64 },
      Environment: { Variables: { A: "é" } },
    });
    for (const body of [text, text.replaceAll("/", "\\/"), text.replaceAll("+", "\\u002b")]) {
      assert.deepEqual(await reader.read(create, Buffer.from(body)), { ...JSON.parse(text), Code: { ZipFile: zip } });
    }
    const twice = `{"Code":{"ZipFile":"AAAA"},"Code":{"ZipFile":"QUJD"}}`;
    assert.deepEqual(await reader.read(create, Buffer.from(twice)), { Code: { ZipFile: Buffer.from("ABC") } });
    const second = `{"Code":{"ZipFile":"AAAA"},"\\u0043ode":5}`;
    assert.deepEqual(await reader.read(create, Buffer.from(second)), { Code: 5 });
    const other = await reader.read(operation("TagResource"), Buffer.from('{"Tags":{"ZipFile":"AAAA"}}'));
    assert.deepEqual(other, { Tags: { ZipFile: "AAAA" } });
  });

  it("takes the largest archive, and no turn long for it", async () => {
    const archive = Buffer.alloc(52_428_800, 7).toString("base64");
    const body = Buffer.from(`{"FunctionName":"f","Code":{"ZipFile":"${archive}"}}`);
    assert.ok(body.byteLength <= REQUEST_BODY_BYTES_MAX);
    const { name, turnMs } = await measured((reader) => reader.read(create, body));
    assert.equal(name, "fine");
    assert.ok(turnMs < TURN_CPU_MS_MAX, `${turnMs} ms`);
  });

  const bytes = 60_000_000;
  const hostile: readonly (readonly [what: string, body: Buffer, error: string])[] = [
    ["members without end", filled(bytes, '"k":"v",', '{"Environment":{"Variables":{'), "SerializationException"],
    ["levels without end", filled(bytes, "[", '{"Layers":'), "SerializationException"],
    ["a string without end", filled(bytes, "a", '{"Description":"', '"}'), "RequestEntityTooLargeException"],
    ["space without end", filled(bytes, " ", "{", "}"), "RequestEntityTooLargeException"],
    ["a number without end", filled(bytes, "1", '{"Timeout":', "}"), "RequestEntityTooLargeException"],
    ["escapes without end", filled(bytes, "\\u0041", '{"Code":{"ZipFile":"'), "InvalidRequestContentException"],
    ["an archive that is none", filled(bytes, "*", '{"Code":{"ZipFile":"', '"}}'), "SerializationException"],
    ["values up to the limits", filled(CONTROL_JSON_BYTES_MAX, " ", `{"Layers":[${"0,".repeat(9_990)}0]`, "}"), "fine"],
  ].map(([what, body, error]) => [what, body, error] as [string, Buffer, string]);
  for (const [what, body, error] of hostile) {
    it(`refuses ${what} in short turns`, async () => {
      const { name, turnMs } = await measured((reader) => reader.read(create, body));
      assert.equal(name, error);
      assert.ok(turnMs < TURN_CPU_MS_MAX, `${turnMs} ms`);
    });
  }

  it("checks events of any form in short turns, many at once too", async () => {
    const half = PAYLOAD_BYTES_MAX / 2;
    const deep = Buffer.concat([filled(half, "["), filled(half, "]")]);
    const dense = filled(PAYLOAD_BYTES_MAX, "1,", "[", "1]");
    const { name, turnMs } = await measured((reader) =>
      Promise.all(Array.from({ length: 8 }, (_, at) => reader.check(at % 2 === 0 ? deep : dense))),
    );
    assert.equal(name, "fine");
    assert.ok(turnMs < TURN_CPU_MS_MAX, `${turnMs} ms`);
  });

  it("refuses events that are no UTF-8", async () => {
    const event = Buffer.from([0x22, 0xff, 0x22]);
    assert.ok(!isUtf8(event));
    await assert.rejects(new JsonReader(createSystemClock(), noTurns).check(event), {
      name: "InvalidRequestContentException",
      message: "Could not parse request body into json: Invalid UTF-8 text",
    });
  });
});
