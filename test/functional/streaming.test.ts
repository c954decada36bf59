import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { InvokeWithResponseStreamCommand } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

const MIB = 1024 * 1024;
const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();

/** Streams `mb` in pieces of `piece` bytes; says in its last line how long one write was held back at most, and its slot. */
const CODE = `
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
const instance = crypto.randomUUID();
let last = null;
export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const { mb = 0, piece = 1 << 16, pauseMs = 0, endless = false } = event;
  if (event.last) { stream.end(JSON.stringify(last)); return; }
  last = { written: 0, done: false };
  const bytes = Buffer.alloc(piece, 0x61);
  let heldMs = 0;
  for (let sent = 0; endless || sent < mb * 1e6; sent += piece) {
    const before = performance.now();
    if (!stream.write(bytes)) await once(stream, "drain");
    heldMs = Math.max(heldMs, performance.now() - before);
    last.written += piece;
    if (pauseMs > 0) await sleep(pauseMs);
  }
  last.done = true;
  stream.end("\\n" + JSON.stringify({ heldMs, instance }));
});
`;
const zip = await zipOf({ "index.mjs": CODE });
const FUNCTION = { zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256 };
await deploy(client, { ...FUNCTION, name: "streams", timeoutS: 60 });
await deploy(client, { ...FUNCTION, name: "hurried", timeoutS: 2 });

interface Streamed {
  readonly bytes: number;
  readonly chunks: number;
  readonly tail: string;
  readonly errorCode: string;
  readonly errorDetails: string;
  readonly log: string;
}

/** Reads a stream to its end; `pause` is called before each chunk is taken. */
const read = async (
  name: string,
  event: unknown,
  pause: (chunks: number) => Promise<void> = () => Promise.resolve(),
): Promise<Streamed> => {
  const answer = await client.send(
    new InvokeWithResponseStreamCommand({
      FunctionName: name,
      LogType: "Tail",
      Payload: Buffer.from(JSON.stringify(event)),
    }),
  );
  let [bytes, chunks, tail, errorCode, errorDetails, log] = [0, 0, "", "", "", ""];
  for await (const part of answer.EventStream ?? []) {
    await pause(chunks);
    const payload = part.PayloadChunk?.Payload;
    if (payload !== undefined) {
      bytes += payload.length;
      chunks += 1;
      tail = (tail + Buffer.from(payload).toString("latin1", Math.max(0, payload.length - 200))).slice(-200);
    }
    errorCode = part.InvokeComplete?.ErrorCode ?? errorCode;
    errorDetails = part.InvokeComplete?.ErrorDetails ?? errorDetails;
    log = Buffer.from(part.InvokeComplete?.LogResult ?? "", "base64").toString() || log;
  }
  return { bytes, chunks, tail, errorCode, errorDetails, log };
};

const lastLine = (tail: string): { readonly heldMs: number; readonly instance: string } =>
  JSON.parse(tail.slice(tail.lastIndexOf("\n") + 1)) as { heldMs: number; instance: string };

/** Hearth's own memory: guests' memory, which it maps, does not count. */
const anonymousBytes = async (): Promise<number> =>
  Number(/^RssAnon:\s+(\d+) kB/m.exec(await readFile(`/proc/${hearth.pid}/status`, "utf8"))?.[1]) * 1024;

/** Its next invocation works; with its short timeout it may need more than one try while other tests run. */
const servesOn = (name: string): Promise<true> =>
  eventually(`${name} serves on`, async () => ((await read(name, { mb: 0 })).errorCode === "" ? true : null));

test("200 MB to a slow reader: the function is held back, Hearth's memory stays as it is", async () => {
  await read("streams", { mb: 10 });
  const before = await anonymousBytes();
  let most = 0;
  const { bytes, tail, errorCode } = await read("streams", { mb: 200 }, async (chunks) => {
    if (chunks % 200 === 0) most = Math.max(most, await anonymousBytes());
    // Nothing is read for a while; what the function writes meanwhile has to wait.
    if (chunks === 100) {
      await sleep(1_500);
      most = Math.max(most, await anonymousBytes());
    }
  });
  assert.equal(errorCode, "");
  assert.ok(bytes > 200e6);
  assert.ok(lastLine(tail).heldMs > 300, `held back for ${lastLine(tail).heldMs} ms`);
  assert.ok(most - before < 80 * MIB, `${Math.round((most - before) / MIB)} MiB more while it streamed`);
});

test("a reader slower than the timeout still gets all that the function wrote in time", async () => {
  const { bytes, errorCode, errorDetails } = await read("hurried", { mb: 1.5 }, async (chunks) => {
    if (chunks === 0) await sleep(3_500);
  });
  assert.equal(errorCode, "", errorDetails);
  assert.ok(bytes >= 1.5e6);
  await servesOn("hurried");
});

test("an endless stream ends at the timeout, and says so", async () => {
  const { bytes, errorCode, errorDetails, log } = await read("hurried", { endless: true, piece: 1000, pauseMs: 5 });
  assert.ok(bytes > 1000);
  assert.equal(errorCode, "Sandbox.Timedout");
  assert.match(errorDetails, /Task timed out after 2\.00 seconds/);
  assert.match(log, /Duration: 2000\.00 ms\tBilled Duration: 2\d\d\d ms.*\tStatus: timeout/);
  await servesOn("hurried");
});

test("an endless stream without a pause ends at the limit of 200 MB", async () => {
  const { bytes, errorCode, errorDetails, log } = await read("streams", { endless: true, piece: 1 << 20 });
  assert.ok(bytes <= 200 * MIB && bytes > 190 * MIB, `${bytes} bytes`);
  assert.equal(errorCode, "Function.ResponseSizeTooLarge");
  assert.match(errorDetails, /maximum allowed payload size \(209715200 bytes\)/);
  assert.match(log, /Status: error\tError Type: Function\.ResponseSizeTooLarge/);
  assert.equal((await read("streams", { mb: 1 })).errorCode, "");
});

test("a client that goes away stops nobody: the function ends as it would have, and serves on", async () => {
  const { instance } = lastLine((await read("streams", { mb: 1 })).tail);
  const gone = new AbortController();
  const answer = await client.send(
    new InvokeWithResponseStreamCommand({ FunctionName: "streams", Payload: Buffer.from('{"mb":60}') }),
    { abortSignal: gone.signal },
  );
  let chunks = 0;
  await assert.rejects(async () => {
    for await (const _ of answer.EventStream ?? []) if (++chunks === 3) gone.abort();
  });
  const done = await eventually("the slot is free again", async () => {
    const slots = (await hearth.slots()).filter((slot) => slot.functionArn.endsWith(":streams"));
    return slots.every((slot) => slot.state === "Idle") ? slots.length : null;
  });
  assert.equal(done, 1);
  assert.deepEqual(JSON.parse((await read("streams", { last: true })).tail), { written: 60_030_976, done: true });
  assert.equal(lastLine((await read("streams", { mb: 1 })).tail).instance, instance);
});

test("a buffered Invoke of a streaming handler gets the whole answer", async () => {
  const answer = await invoke(client, "streams", { last: true });
  assert.deepEqual(answer.value, { written: 1_048_576, done: true });
});
