import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { CreateFunctionCommand, ListFunctionsCommand } from "@aws-sdk/client-lambda";
import { eventually } from "../functional/hearth.ts";
import { functionInput, startHarness } from "./harness.ts";
import type { Harness } from "./harness.ts";
import { headOf, RawConnection } from "./raw-http.ts";
import type { RawAnswer } from "./raw-http.ts";

/*
 * Without authentication the owner's own browser must not be made to call: what a page can cause a browser to send is
 * refused, and what programs send is not.
 */

const FUNCTIONS = "/2015-03-31/functions";

let at: Harness;
before(async () => {
  at = await startHarness({ auth: "none", allowedHosts: ["hearth.example"] });
});
after(() => at[Symbol.asyncDispose]());

const ask = async (
  headers: Readonly<Record<string, string>>,
  method = "GET",
  path = FUNCTIONS,
  body = "",
): Promise<RawAnswer> => {
  const length = body === "" ? {} : { "Content-Length": Buffer.byteLength(body) };
  const head = headOf(method, path, { Connection: "close", ...length, ...headers });
  using connection = new RawConnection(at.frontend.port).send(head + body);
  return await connection.answer;
};

describe("without authentication", () => {
  it("a page's create and invoke are refused, and nothing was made", async () => {
    const { Code, ...input } = await functionInput("evil");
    const body = JSON.stringify({ ...input, Code: { ZipFile: Buffer.from(Code.ZipFile).toString("base64") } });
    const page = {
      Origin: "http://evil.example",
      "Sec-Fetch-Site": "cross-site",
      "Content-Type": "text/plain",
      Host: `evil.example:${at.frontend.port}`,
    };
    const created = await ask(page, "POST", FUNCTIONS, body);
    assert.deepEqual([created.status, created.headers.get("x-amzn-errortype")], [403, "AccessDeniedException"]);
    assert.equal((await ask(page, "POST", `${FUNCTIONS}/evil/invocations`, "{}")).status, 403);
    assert.equal((await ask({}, "GET", `${FUNCTIONS}/evil`)).status, 404);
    // The same from a program.
    assert.equal((await ask({ "Content-Type": "text/plain" }, "POST", FUNCTIONS, body)).status, 201);
  });

  it("each of the three headers alone tells a page, and the answer says what to do", async () => {
    const { port } = at.frontend;
    const pages: readonly (readonly [Record<string, string>, RegExp])[] = [
      [{ Host: `evil.example:${port}` }, /host \\"evil\.example:\d+\\".* --allow-host evil\.example/],
      [{ Host: "169.254.169.254" }, /--allow-host 169\.254\.169\.254/],
      [{ Host: "localhost.evil.example" }, /--allow-host localhost\.evil\.example/],
      [{ Host: "127.0.0.1.evil.example" }, /--allow-host/],
      [{ Host: "127.0.0.1@evil.example" }, /is for the host/],
      [{ Host: "" }, /is for the host/],
      [{ Origin: "http://evil.example" }, /Origin \\"http:\/\/evil\.example\\"/],
      [{ Origin: "null" }, /Origin \\"null\\"/],
      [{ Origin: `http://127.0.0.1:${port + 1}` }, /Origin/],
      [{ Origin: "http://localhost:3000" }, /Origin/],
      [{ Origin: "http://hearth.example.evil.example" }, /Origin/],
      [{ "Sec-Fetch-Site": "cross-site" }, /Sec-Fetch-Site/],
      [{ "Sec-Fetch-Site": "same-site" }, /Sec-Fetch-Site/],
    ];
    for (const [headers, text] of pages) {
      const answer = await ask(headers);
      assert.equal(answer.status, 403, JSON.stringify(headers));
      assert.match(answer.text, text);
    }
    assert.equal((await ask({ Origin: "http://evil.example" }, "OPTIONS")).status, 403);
  });

  it("programs of this machine are served, by any of its names, and by those that were allowed", async () => {
    const { port } = at.frontend;
    const hosts = ["localhost", `LOCALHOST:${port}`, `127.0.0.1:${port}`, "127.8.8.8", `[::1]:${port}`, "localhost:1"];
    for (const Host of [...hosts, "hearth.example", `Hearth.Example:${port}`]) {
      assert.equal((await ask({ Host })).status, 200, Host);
    }
    assert.equal((await ask({ Host: "hearth.example", Origin: "https://hearth.example" })).status, 200);
    assert.equal((await ask({ "Sec-Fetch-Site": "none" })).status, 200);
  });
});

describe("with authentication", () => {
  it("a request is judged by its signature, whatever its host and origin", async () => {
    await using signed = await startHarness();
    const headers = { Host: "evil.example", Origin: "http://evil.example", Connection: "close" };
    using connection = new RawConnection(signed.frontend.port).send(headOf("GET", FUNCTIONS, headers));
    const answer = await connection.answer;
    assert.deepEqual(
      [answer.status, answer.headers.get("x-amzn-errortype")],
      [403, "MissingAuthenticationTokenException"],
    );
  });
});

describe("a client that ends its half of the connection after its request", () => {
  it("gets its answer, also when that comes later than its end", async () => {
    await at.client.send(new CreateFunctionCommand(await functionInput("half")));
    const body = '{"do":"hold","half":"closed"}';
    const head = headOf("POST", `${FUNCTIONS}/half/invocations`, { "Content-Length": body.length });
    using connection = new RawConnection(at.frontend.port).end(head + body);
    await eventually("it runs", async () => (at.echo.leased === 1 ? true : null));
    // Once others that came later were served, its end has been seen.
    for (let n = 0; n < 3; n += 1) await at.client.send(new ListFunctionsCommand({}));
    at.echo.letGo();
    const { status, text } = await connection.answer;
    assert.equal(status, 200);
    assert.ok(text.endsWith(body), text);
  });
});
