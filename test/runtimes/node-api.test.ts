/** The Runtime API's client of the Node runtimes, by the bytes on its connection. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

interface Client {
  next(): Promise<{ readonly headers: Readonly<Record<string, string>>; readonly body: string }>;
  answer(path: string, text: string): Promise<{ readonly status: number }>;
  abandon(): void;
}

const { RuntimeApi } = (await import(new URL("../../src/runtimes/node/runtime-api.mjs", import.meta.url).href)) as {
  readonly RuntimeApi: new (authority: string) => Client;
};

const event = (id: string, body: string): string =>
  `HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: ${id}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const chunked = (id: string): string =>
  `HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: ${id}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n"ab\r\n2\r\nc"\r\n0\r\n\r\n`;
const TAKEN = 'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n';

/** A server for one connection: what comes, piece by piece, and what is said to it. */
const serve = async (): Promise<
  AsyncDisposable & { readonly client: Client; readonly pieces: string[]; readonly socket: Promise<Socket> }
> => {
  const server = createServer({ noDelay: true });
  const pieces: string[] = [];
  const socket = once(server, "connection").then(([accepted]) => {
    (accepted as Socket).on("data", (chunk: Buffer) => pieces.push(chunk.toString()));
    return accepted as Socket;
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = new RuntimeApi(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  return {
    client,
    pieces,
    socket,
    [Symbol.asyncDispose]: async () => {
      client.abandon();
      (await socket).destroy();
      server.close();
      await once(server, "close");
    },
  };
};

const come = async (pieces: readonly string[], count: number): Promise<void> => {
  while (pieces.length < count) await turn();
};

test("an answer and the request for the next event are one write, and their replies may come in any pieces", async () => {
  await using served = await serve();
  const { client, pieces } = served;
  const first = client.next();
  const socket = await served.socket;
  await come(pieces, 1);
  socket.write(event("first", '{"n":1}'));
  assert.equal((await first).body, '{"n":1}');
  const replies = [TAKEN + event("plain", '"é"'), TAKEN + event("empty", ""), TAKEN + chunked("chunks")];
  const bodies = ['"é"', "", '"abc"'];
  let requests = 1;
  for (const [at, reply] of replies.entries()) {
    const bytes = Buffer.from(reply);
    for (let split = 1; split <= bytes.length; split += 1) {
      const taken = client.answer("/runtime/invocation/x/response", '{"ok":true}');
      await come(pieces, ++requests);
      assert.match(
        pieces[requests - 1] ?? "",
        /^POST [^]*\{"ok":true\}GET \/2018-06-01\/runtime\/invocation\/next HTTP/,
      );
      socket.write(bytes.subarray(0, split));
      // Not with what was written before.
      await turn();
      await turn();
      socket.write(bytes.subarray(split));
      assert.equal((await taken).status, 202);
      const { body } = await client.next();
      assert.equal(body, bodies[at], `split at ${split}`);
    }
  }
  assert.equal(pieces.length, requests);
});

test("a connection that ends fails the answer and the event that was asked for with it", async () => {
  await using served = await serve();
  const { client, pieces } = served;
  const first = client.next();
  const socket = await served.socket;
  await come(pieces, 1);
  socket.write(event("first", "1"));
  await first;
  const taken = client.answer("/runtime/invocation/x/response", "1");
  await come(pieces, 2);
  socket.destroy();
  await assert.rejects(taken);
  await assert.rejects(client.next());
});
