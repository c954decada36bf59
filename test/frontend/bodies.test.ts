import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { Sha256 } from "@aws-crypto/sha256-js";
import { CreateFunctionCommand } from "@aws-sdk/client-lambda";
import { SignatureV4 } from "@smithy/signature-v4";
import { Bodies } from "../../src/frontend/http/bodies.ts";
import type { Body } from "../../src/frontend/http/bodies.ts";
import { UNPROVEN_BODIES_BYTES_MAX } from "../../src/frontend/http/limits.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { ServiceError } from "../../src/wire/errors.ts";
import { REQUEST_BODY_BYTES_MAX } from "../../src/wire/limits.ts";
import { eventually } from "../functional/hearth.ts";
import { functionInput, KEYS, REGION, startHarness } from "./harness.ts";
import type { Harness } from "./harness.ts";
import { headOf, RawConnection } from "./raw-http.ts";

/* Bodies of requests: what they may take of memory and time before and after their sender has proven a key. */

const FUNCTIONS = "/2015-03-31/functions";
const MIB = 1024 * 1024;

/** Headers of a signed POST, by a client that names the body's hash or does not. */
const signed = async (
  at: Harness,
  path: string,
  body: string,
  options: { readonly applyChecksum: boolean; readonly secretAccessKey?: string },
): Promise<Record<string, string>> => {
  const { host, hostname, port } = new URL(at.endpoint);
  const secretAccessKey = options.secretAccessKey ?? KEYS.secretAccessKey;
  const signer = new SignatureV4({
    credentials: { ...KEYS, secretAccessKey },
    region: REGION,
    service: "lambda",
    sha256: Sha256,
    applyChecksum: options.applyChecksum,
  });
  const request = { method: "POST", protocol: "http:", hostname, port: Number(port), path, query: {} };
  const { headers } = await signer.sign({ ...request, headers: { host }, body });
  return headers;
};

/** `host` stands in the signed headers already. */
const headWith = (path: string, headers: Readonly<Record<string, string | number>>): string => {
  const { host = "", ...others } = headers;
  return headOf("POST", path, { ...others, Host: host });
};

describe("a body whose sender has no key", () => {
  it("is not read when the head alone says so, and the answer does not wait for it", async () => {
    await using at = await startHarness();
    const wrong = { applyChecksum: true, secretAccessKey: "guess" };
    const headers = await signed(at, FUNCTIONS, "{}", wrong);
    using connection = new RawConnection(at.frontend.port);
    connection.send(headWith(FUNCTIONS, { ...headers, "Content-Length": REQUEST_BODY_BYTES_MAX }));
    await eventually("it is refused", async () => (connection.text.includes("403 Forbidden") ? true : null));
    connection.send(Buffer.alloc(8 * MIB, "x"));
    assert.deepEqual(at.frontend.holds.bodies, { unprovenBytes: 0, bytes: 0 });
  });

  it("is not sent by a client that asks first (Expect: 100-continue)", async () => {
    await using at = await startHarness();
    const expect = { Expect: "100-continue", "Content-Length": 2 };
    const wrong = await signed(at, FUNCTIONS, "{}", { applyChecksum: true, secretAccessKey: "guess" });
    using refused = new RawConnection(at.frontend.port).send(headWith(FUNCTIONS, { ...wrong, ...expect }));
    const { text } = await refused.answer;
    assert.match(text, /^HTTP\/1\.1 403 /);
    const right = await signed(at, FUNCTIONS, "{}", { applyChecksum: false });
    using taken = new RawConnection(at.frontend.port).send(headWith(FUNCTIONS, { ...right, ...expect }));
    await eventually("it may send", async () => (/^HTTP\/1\.1 100 Continue\r\n\r\n$/.test(taken.text) ? true : null));
    taken.send("{}");
    await eventually("it is answered", async () => (/\r\n\r\nHTTP\/1\.1 400 /.test(taken.text) ? true : null));
  });

  it("takes its part of one budget, and is gone when it was wrong", async () => {
    await using at = await startHarness();
    await at.client.send(new CreateFunctionCommand(await functionInput("f")));
    const bytes = 66_000_000;
    const piece = Buffer.alloc(4 * MIB, "x");
    const headers = await signed(at, FUNCTIONS, "{}", { applyChecksum: false, secretAccessKey: "guess" });
    const held: number[] = [];
    const upload = async (): Promise<number | null> => {
      using connection = new RawConnection(at.frontend.port);
      const closed = new Promise((resolve) => connection.socket.once("close", resolve));
      connection.send(headWith(FUNCTIONS, { ...headers, "Content-Length": bytes }));
      for (let sent = 0; sent < bytes && !connection.socket.destroyed; sent += piece.byteLength) {
        const part = piece.subarray(0, Math.min(piece.byteLength, bytes - sent));
        const more = connection.socket.write(part);
        held.push(at.frontend.holds.bodies.unprovenBytes);
        if (!more) {
          await Promise.race([new Promise((resolve) => connection.socket.once("drain", resolve)), closed]);
        }
      }
      const { status, headers: answered } = await connection.answer;
      if (status === 503) assert.equal(answered.get("retry-after"), "1");
      return status;
    };
    const statuses = await Promise.all(Array.from({ length: 8 }, upload));
    assert.deepEqual(
      [...new Set(statuses)].filter((status) => status !== 403 && status !== 503),
      [],
    );
    assert.ok(Math.max(...held) > bytes, "they were never in memory");
    assert.ok(Math.max(...held) <= UNPROVEN_BODIES_BYTES_MAX, `${Math.max(...held)} bytes at once`);
    await eventually("nothing is held", async () => (at.frontend.holds.bodies.unprovenBytes === 0 ? true : null));
  });
});

describe("a body that comes slowly, or breaks off, or is endless", () => {
  it("ends with 408: a head after 10 seconds, a body below its rate", async () => {
    await using at = await startHarness({ auth: "none" });
    const head = headOf("POST", FUNCTIONS, { "Content-Length": 1_000 });
    const chunked = headOf("POST", FUNCTIONS, { "Transfer-Encoding": "chunked" });
    using stack = new DisposableStack();
    const open = (data: string): RawConnection => stack.use(new RawConnection(at.frontend.port).send(data));
    const [silent, slowHead, slowBody, slowChunks] = [open(""), open("GET /x HTTP/1.1\r\n"), open(head), open(chunked)];
    const trickle = setInterval(() => {
      slowHead.send("a: b\r\n");
      slowBody.send("x");
      slowChunks.send("1\r\nx\r\n");
    }, 500);
    stack.defer(() => clearInterval(trickle));
    const answers = await Promise.all([silent, slowHead, slowBody, slowChunks].map(({ answer }) => answer));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [408, 408, 408, 408],
    );
    for (const { headers } of answers) assert.equal(headers.get("x-amzn-errortype"), "RequestTimeoutException");
    assert.match(answers[2]?.text ?? "", /body must come at 16384 bytes a second/);
  });

  it("is forgotten when it breaks off, and refused when a chunk of it is none or it grows too long", async () => {
    await using at = await startHarness({ auth: "none" });
    const chunked = headOf("POST", FUNCTIONS, { "Transfer-Encoding": "chunked" });
    {
      using broken = new RawConnection(at.frontend.port);
      broken.send(headOf("POST", FUNCTIONS, { "Content-Length": 1_000_000 }) + "x".repeat(1_000));
      await eventually("it is held", async () => (at.frontend.holds.bodies.bytes > 0 ? true : null));
    }
    await eventually("it is not", async () => (at.frontend.holds.bodies.bytes === 0 ? true : null));
    using nonsense = new RawConnection(at.frontend.port).send(`${chunked}zz\r\nhello\r\n`);
    assert.equal((await nonsense.answer).status, 400);
    using endless = new RawConnection(at.frontend.port);
    endless.send(headOf("POST", `${FUNCTIONS}/f/versions`, { "Transfer-Encoding": "chunked" }));
    const chunk = `${MIB.toString(16)}\r\n${"x".repeat(MIB)}\r\n`;
    for (let n = 0; n < 7; n += 1) endless.send(chunk);
    await eventually("it is refused", async () => (endless.text.includes("413 Payload Too Large") ? true : null));
    assert.equal(at.frontend.holds.bodies.bytes, 0);
  });
});

const tooLarge = (): ServiceError => new ServiceError("TooLarge", 413, "");

/** A server whose requests are read by `bodies` and answered with what came of it. */
const serve = async (bodies: Bodies, isProven: boolean): Promise<AsyncDisposable & { readonly port: number }> => {
  const held: Body[] = [];
  const server = createServer((request, response) => {
    bodies.read(request, { bytesMax: MIB, tooLarge, isProven, needsHash: false }).then(
      (body) => {
        held.push(body);
        response.end("held");
      },
      (error: unknown) => {
        response.writeHead(error instanceof ServiceError ? error.status : 500, { connection: "close" }).end();
      },
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const body of held) body[Symbol.dispose]();
      server.close();
      server.closeAllConnections();
    },
  };
};

describe("when the budget of bodies is used up", () => {
  it("the slowest unproven one gives way, not the one that sends", async () => {
    const bodies = new Bodies(systemClock, 100_000, MIB);
    await using server = await serve(bodies, false);
    const head = headOf("POST", "/", { "Content-Length": 90_000 });
    using slow = new RawConnection(server.port).send(head + "x".repeat(20_000));
    await eventually("it has begun", async () => (bodies.held.unprovenBytes === 20_000 ? true : null));
    using fast = new RawConnection(server.port).send(head + "x".repeat(90_000));
    assert.equal((await slow.answer).status, 503);
    await eventually("the other is through", async () => (fast.text.endsWith("held") ? true : null));
    assert.equal(bodies.held.unprovenBytes, 90_000);
  });

  it("one of a proven sender is refused before it is read, and all is given back", async () => {
    const bodies = new Bodies(systemClock, MIB, 100_000);
    {
      await using server = await serve(bodies, true);
      const head = headOf("POST", "/", { "Content-Length": 60_000 });
      using first = new RawConnection(server.port).send(head + "x".repeat(60_000));
      await eventually("it is held", async () => (first.text.endsWith("held") ? true : null));
      using second = new RawConnection(server.port).send(head);
      assert.equal((await second.answer).status, 503);
      assert.deepEqual(bodies.held, { unprovenBytes: 0, bytes: 60_000 });
    }
    assert.deepEqual(bodies.held, { unprovenBytes: 0, bytes: 0 });
  });
});
