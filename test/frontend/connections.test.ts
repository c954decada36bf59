import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CreateFunctionCommand, InvokeCommand, ListFunctionsCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { HEAD_BYTES_MAX, PIPELINED_MAX } from "../../src/frontend/http/limits.ts";
import { eventually } from "../functional/hearth.ts";
import { clientOf, functionInput, startHarness } from "./harness.ts";
import type { Harness } from "./harness.ts";
import { headOf, RawConnection } from "./raw-http.ts";

/* Who may hold a connection, how long, and what the others notice of it. */

const INVOCATIONS = "/2015-03-31/functions/f/invocations";
/** So many connections where a default Frontend has 8,192: strangers are some hundreds here where they were 22,000. */
const CONNECTIONS_MAX = 64;

const countOf = (at: Harness): number => Object.values(at.frontend.holds.connections).reduce((sum, n) => sum + n, 0);

const crowdOf = (size: number, port: number, data: string): DisposableStack & { readonly all: RawConnection[] } => {
  const stack = new DisposableStack();
  const all = Array.from({ length: size }, () => stack.use(new RawConnection(port).send(data)));
  return Object.assign(stack, { all });
};

describe("strangers' connections", () => {
  it("never keep a client with keys out: silent ones, half a head, half a body", async () => {
    await using at = await startHarness({ connectionsMax: CONNECTIONS_MAX });
    await at.client.send(new CreateFunctionCommand(await functionInput("f")));
    const { port } = at.frontend;
    const heads = ["", "GET / HTTP/1.1\r\nHost: x\r\n", headOf("POST", INVOCATIONS, { "Content-Length": 1_000 })];
    for (const head of heads) {
      using crowd = crowdOf(5 * CONNECTIONS_MAX, port, head);
      await Promise.all(crowd.all.slice(0, 3 * CONNECTIONS_MAX).map(({ answer }) => answer));
      // Each call by a connection of its own, as a new client's.
      for (let n = 0; n < 10; n += 1) {
        using _more = crowdOf(10, port, head);
        const client = clientOf(at.endpoint);
        const answer = await client.send(new InvokeCommand({ FunctionName: "f", Payload: "{}" }));
        assert.equal(answer.StatusCode, 200);
        client.destroy();
      }
      assert.ok(countOf(at) <= CONNECTIONS_MAX, `${countOf(at)} connections`);
    }
    await eventually("no connection is left", async () => (countOf(at) <= 1 ? true : null));
  });

  it("do not close a connection that is at work, or idle with good keys while strangers can go", async () => {
    await using at = await startHarness({ connectionsMax: CONNECTIONS_MAX });
    await at.client.send(new CreateFunctionCommand(await functionInput("f")));
    const held = at.client.send(new InvokeCommand({ FunctionName: "f", Payload: '{"do":"hold"}' }));
    await eventually("it works", async () => (at.echo.leased === 1 ? true : null));
    using crowd = crowdOf(4 * CONNECTIONS_MAX, at.frontend.port, "GET ");
    await Promise.all(crowd.all.slice(0, 2 * CONNECTIONS_MAX).map(({ answer }) => answer));
    at.echo.letGo();
    assert.equal((await held).StatusCode, 200);
  });
});

describe("idle connections of clients with keys", () => {
  it("leave room for as many newcomers at once as they are themselves", async () => {
    // Half of them are one address's, and half of those idle ones keep.
    await using at = await startHarness({ connectionsMax: CONNECTIONS_MAX });
    await at.client.send(new CreateFunctionCommand(await functionInput("f")));
    const call = async (payload: string): Promise<LambdaClient> => {
      const client = clientOf(at.endpoint);
      assert.equal((await client.send(new InvokeCommand({ FunctionName: "f", Payload: payload }))).StatusCode, 200);
      return client;
    };
    const idle: LambdaClient[] = [];
    for (let n = 0; n < CONNECTIONS_MAX / 2; n += 1) idle.push(await call("{}"));
    const coming = Array.from({ length: CONNECTIONS_MAX / 4 }, () => call('{"do":"hold"}'));
    const all = Promise.all(coming);
    await Promise.race([all, eventually("all work", async () => (at.echo.leased === coming.length ? true : null))]);
    at.echo.letGo();
    for (const client of [...idle, ...(await all)]) client.destroy();
  });
});

describe("when every connection is at work", () => {
  it("a new one is told so with 503 and Retry-After, and is served when one is free", async () => {
    // Half of them are one address's.
    await using at = await startHarness({ auth: "none", connectionsMax: 8 });
    await at.client.send(new CreateFunctionCommand(await functionInput("f")));
    at.client.destroy();
    await eventually("the client's connection is gone", async () => (countOf(at) === 0 ? true : null));
    const body = '{"do":"hold"}';
    const request = headOf("POST", INVOCATIONS, { "Content-Length": body.length }) + body;
    using working = crowdOf(4, at.frontend.port, request);
    await eventually("all work", async () => (at.echo.leased === 4 ? true : null));
    using refused = new RawConnection(at.frontend.port);
    const answer = await refused.answer;
    assert.deepEqual(
      [answer.status, answer.headers.get("x-amzn-errortype"), answer.headers.get("retry-after")],
      [503, "ServiceUnavailableException", "1"],
    );
    assert.match(answer.text, /as many connections at work as it may have/);
    at.echo.letGo();
    await eventually("they are through", async () => (at.echo.leased === 0 ? true : null));
    using served = new RawConnection(at.frontend.port).send(headOf("GET", "/2015-03-31/functions"));
    await eventually("it is served", async () => (served.text.includes("200 OK") ? true : null));
    assert.ok(working.all.every(({ text }) => text.includes("200 OK")));
  });
});

describe("a connection", () => {
  it("is closed when requests run ahead of the answers, or a stranger's first one was answered", async () => {
    await using at = await startHarness();
    const head = headOf("GET", "/2015-03-31/functions");
    using flood = new RawConnection(at.frontend.port).send(head.repeat(2_000));
    const { text } = await flood.answer;
    assert.ok(text.split("HTTP/1.1 ").length - 1 <= PIPELINED_MAX, text.slice(0, 400));
    using two = new RawConnection(at.frontend.port).send(head);
    const answer = await two.answer;
    assert.deepEqual([answer.status, answer.headers.get("connection")], [403, "close"]);
  });

  it("stays open for a client with keys", async () => {
    await using at = await startHarness();
    for (let n = 0; n < 20; n += 1) await at.client.send(new ListFunctionsCommand({}));
    assert.equal(countOf(at), 1);
    assert.equal(at.frontend.holds.connections["idle"], 1);
  });

  it("gets an answer in words for what is no request", async () => {
    await using at = await startHarness();
    const cases: readonly (readonly [data: string, status: number])[] = [
      ["NONSENSE\r\n\r\n", 400],
      ["\u0016\u0003\u0001\u0002\u0000\u0001", 400],
      ["GET / HTTP/1.1\r\n\r\n", 400],
      [headOf("GET", "/", { "X-Long": "x".repeat(HEAD_BYTES_MAX) }), 431],
      [headOf("POST", "/", { "Content-Length": 5, "Transfer-Encoding": "chunked" }), 400],
      [headOf("POST", "/", { "Content-Length": "5, 6" }), 400],
      [headOf("POST", "/", { "Content-Length": "-1" }), 400],
    ];
    for (const [data, status] of cases) {
      using connection = new RawConnection(at.frontend.port).send(data);
      const answer = await connection.answer;
      assert.equal(answer.status, status, JSON.stringify(data.slice(0, 80)));
    }
    using fine = new RawConnection(at.frontend.port).send(headOf("GET", "/"));
    assert.equal((await fine.answer).status, 403);
  });
});
