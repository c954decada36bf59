import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { after, describe, test } from "node:test";
import { promisify } from "node:util";
import { ConfigureField, FailureOutcome, FromShim, ShutdownField, ToShim } from "../../src/wire/shim-protocol.ts";
import { readFailure } from "./driver.ts";
import { HostShim, SanitizedShim } from "./on-host.ts";

const FUZZ_SECONDS = 8;
const NEXT = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n";

const programs = new SanitizedShim();
after(() => programs[Symbol.dispose]());

test("hostile bytes and any order of events, under sanitizers", { timeout: 120_000 }, async () => {
  const seed = process.env["SHIM_FUZZ_SEED"] ?? "1";
  const { stdout } = await promisify(execFile)(programs.fuzzer, [String(FUZZ_SECONDS), seed, programs.corpus]);
  assert.match(stdout, /^\d+ rounds, \d+ invocations\n$/);
});

/** Reads until the text has come, or the end. */
const read = async (socket: Socket, until: RegExp): Promise<string> => {
  let text = "";
  while (!until.test(text)) {
    const chunk = socket.read() as Buffer | null;
    if (chunk !== null) text += chunk.toString("latin1");
    else if (socket.readableEnded || socket.destroyed) return text;
    else await Promise.race([once(socket, "readable"), once(socket, "close")]);
  }
  return text;
};

describe("connections", () => {
  test("requests in pieces of a byte, sent ahead, and answered in order", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.configure(shim.fields());
    const socket = await shim.client();
    for (const byte of "GET /2018-06-01/ping HTTP/1.1\r\nA: b\r\n\r\n") socket.write(byte);
    assert.match(await read(socket, /pong/), /^HTTP\/1\.1 200 OK\r\n/);
    socket.write(
      "GET /2018-06-01/ping HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\nGET /2018-06-01/ping HTTP/1.1\r\n\r\n",
    );
    assert.match(await read(socket, /pong[^]*pong/), /pong[^]*404 Not Found[^]*"errorType":"NotFound"[^]*pong/);
    socket.destroy();
  });

  test("what is not HTTP is refused and the connection closed", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.configure(shim.fields());
    const cases: readonly [string, RegExp][] = [
      ["\0\0\0\0\r\n\r\n", /^HTTP\/1\.1 400 /],
      ["GET /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", /^HTTP\/1\.1 400 /],
      ["POST /x HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", /^HTTP\/1\.1 400 /],
      [`GET /x HTTP/1.1\r\nA: ${"a".repeat(1_200_000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
      ["POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", /^$/],
    ];
    for (const [bytes, expected] of cases) {
      const socket = await shim.client();
      socket.write(bytes);
      assert.match(await read(socket, /never/), expected, bytes.slice(0, 60));
      socket.destroy();
    }
    assert.equal((await shim.driver.invoke("echo unharmed")).body.toString(), "unharmed");
  });

  test("a client that asks first is told to go on", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.configure(shim.fields());
    const socket = await shim.client();
    socket.write("POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert.equal(await read(socket, /\r\n\r\n/), "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write("{}");
    assert.match(await read(socket, /\}\n/), /^HTTP\/1\.1 403 Forbidden\r\n[^]*InvalidStateTransition/);
    socket.destroy();
  });

  test("whoever asks is the runtime: the newest `next` counts", async () => {
    await using shim = await HostShim.start(programs);
    // The program itself does nothing; connections of the test play the runtime.
    shim.driver.send(ToShim.Configure, shim.fields([[ConfigureField.Environment, "INIT=sleep"]]));
    const first = await shim.client();
    first.write(NEXT);
    await shim.driver.until([FromShim.Ready]);
    const second = await shim.client();
    second.write(NEXT);
    assert.equal(await read(first, /never/), "");
    const invoked = shim.driver.invoke("an event");
    const event = await read(second, /an event$/);
    const id = /Lambda-Runtime-Aws-Request-Id: (\S+)/.exec(event)?.[1] ?? "";
    // Its next request lies ready before the reply to this one is sent.
    second.write(
      `POST /2018-06-01/runtime/invocation/${id}/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n` +
        `4\r\nfrom\r\n8\r\n another\r\n0\r\n\r\n${NEXT}`,
    );
    const { body, failure, alive } = await invoked;
    assert.equal(body.toString(), "from another");
    assert.equal(failure, null);
    assert.equal(alive, true);
    second.destroy();
  });

  test("a `next` that is asked again during an invocation gets the same event", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.configure(shim.fields());
    const invoked = shim.driver.invoke("sleep", { timeoutMs: 1000 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    const other = await shim.client();
    other.write(NEXT);
    assert.match(await read(other, /sleep$/), /^HTTP\/1\.1 200 OK\r\n/);
    assert.equal((await invoked).failure?.outcome, FailureOutcome.TimedOut);
  });

  test("a flood of requests sent ahead ends that connection only", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.configure(shim.fields());
    const socket = await shim.client();
    socket.write(NEXT.repeat(20_000));
    await new Promise((resolve) => socket.once("close", resolve));
    // It had taken the runtime's place, which therefore ended; with the new one all connections are new ones.
    assert.equal((await shim.driver.invoke("echo on")).body.toString(), "on");
    const again = await shim.client();
    again.write("GET /2018-06-01/ping HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert.match(await read(again, /never/), /pong$/);
  });
});

describe("a runtime that is started ahead", () => {
  const AHEAD = [ConfigureField.Environment, "HEARTH_PREPARED=1"] as const;
  const TAKE = [ConfigureField.TakePrepared, 1] as const;
  const MINE = [ConfigureField.Environment, "MINE=of the function"] as const;

  test("becomes the function's, with its environment, or is started anew", async () => {
    for (const taken of [1, 0]) {
      await using shim = await HostShim.start(programs);
      await shim.driver.prepare(shim.fields([AHEAD]));
      const init = await shim.driver.configure(shim.fields([MINE, [ConfigureField.TakePrepared, taken]]));
      assert.equal(init.frame.type, FromShim.Ready);
      assert.equal((await shim.driver.invoke("env MINE")).body.toString(), "of the function");
      assert.equal((await shim.driver.invoke("env HEARTH_PREPARED")).body.toString(), "-");
      assert.equal((await shim.driver.invoke("ask")).body.toString(), "403");
      const { body } = await shim.driver.invoke("pid");
      // After an end it is started for the function, whichever way it began.
      assert.equal((await shim.driver.invoke("exit 3")).failure?.exitCode, 3);
      assert.equal((await shim.driver.invoke("env MINE")).body.toString(), "of the function");
      assert.notEqual((await shim.driver.invoke("pid")).body.toString(), body.toString());
    }
  });

  test("waits until the extensions have registered", async () => {
    await using shim = await HostShim.start(programs, programs.opt(["extension-a"]));
    await shim.driver.prepare(shim.fields([AHEAD]));
    const init = await shim.driver.configure(shim.fields([MINE, TAKE]));
    assert.equal(init.frame.type, FromShim.Ready);
    const { stdout } = await shim.driver.invoke("env MINE");
    // What it printed travels beside what it asked of the API, and may come behind the end of the init.
    assert.match(init.log + stdout, /extension-a registered 200/);
    assert.match(stdout, /extension-a got .*"INVOKE"/);
  });

  test("an init that fails is told as ever", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.prepare(shim.fields([AHEAD]));
    const init = await shim.driver.configure(shim.fields([TAKE, [ConfigureField.Environment, "INIT=error"]]));
    assert.equal(init.frame.type, FromShim.InitFailed);
    assert.equal(readFailure(init.reader)?.errorType, "Runtime.Broken");
    await using later = await HostShim.start(programs);
    await later.driver.prepare(later.fields([[ConfigureField.Environment, "HEARTH_PREPARED=exit-later"]]));
    const exit = await later.driver.configure(later.fields([TAKE]));
    assert.equal(readFailure(exit.reader)?.outcome, FailureOutcome.Exited);
    assert.equal(readFailure(exit.reader)?.exitCode, 4);
    assert.equal((await later.driver.invoke("env MINE")).body.toString(), "-");
    await using slow = await HostShim.start(programs);
    await slow.driver.prepare(slow.fields([AHEAD]));
    const limit = [ConfigureField.InitTimeoutMs, 200] as const;
    const late = await slow.driver.configure(slow.fields([TAKE, limit, [ConfigureField.Environment, "INIT=sleep"]]));
    assert.equal(readFailure(late.reader)?.outcome, FailureOutcome.TimedOut);
    const ms = (readFailure(late.reader)?.durationUs ?? 0) / 1000;
    assert.ok(ms >= 200 && ms < 2000, `${ms} ms`);
  });

  test("init is cut off when the host says that it has had its time, and not once it is over", async () => {
    await using slow = await HostShim.start(programs);
    const waiting = slow.driver.configure(slow.fields([[ConfigureField.Environment, "INIT=sleep"]]));
    slow.driver.send(ToShim.EndInit);
    const init = await waiting;
    assert.equal(init.frame.type, FromShim.InitFailed);
    assert.equal(readFailure(init.reader)?.outcome, FailureOutcome.TimedOut);
    await using ready = await HostShim.start(programs);
    await ready.driver.configure(ready.fields());
    ready.driver.send(ToShim.EndInit);
    assert.equal((await ready.driver.invoke("env MINE")).body.toString(), "-");
  });

  test("its end before it has a function, and frames out of turn, are Faults", async () => {
    const cases: readonly [RegExp, (shim: HostShim) => void][] = [
      [
        /prepared runtime (?:ended|does not wait)/,
        (shim) => shim.driver.send(ToShim.Prepare, shim.fields([[ConfigureField.Environment, "HEARTH_PREPARED=exit"]])),
      ],
      [
        /Prepare came too late/,
        (shim) => {
          shim.driver.send(ToShim.Prepare, shim.fields([AHEAD]));
          shim.driver.send(ToShim.Prepare, shim.fields([AHEAD]));
        },
      ],
      [
        /Prepare came too late/,
        (shim) => {
          shim.driver.send(ToShim.Configure, shim.fields());
          shim.driver.send(ToShim.Prepare, shim.fields([AHEAD]));
        },
      ],
    ];
    for (const [expected, act] of cases) {
      await using shim = await HostShim.start(programs);
      act(shim);
      await assert.rejects(shim.driver.until([FromShim.Ready]), expected);
    }
  });
});

describe("extensions", () => {
  test("take part in init, invocation and shutdown", async () => {
    await using shim = await HostShim.start(programs, programs.opt(["extension-a", "extension-b"]));
    const init = await shim.driver.configure(shim.fields());
    assert.equal(init.frame.type, FromShim.Ready);
    const expected = '{"functionName":"f","functionVersion":"","handler":"","accountId":"000000000000"}';
    const { requestId, body, stdout } = await shim.driver.invoke("echo x");
    for (const name of ["a", "b"])
      assert.ok((init.log + stdout).includes(`extension-${name} registered 200 ${expected}`), init.log + stdout);
    assert.equal(body.toString(), "x");
    for (const name of ["a", "b"]) assert.match(stdout, new RegExp(`extension-${name} got .*"INVOKE".*"${requestId}"`));
    shim.driver.send(ToShim.Shutdown, [
      [ShutdownField.Reason, "spindown"],
      [ShutdownField.GraceMs, 2000],
    ]);
    let log = "";
    const told = shim.driver.until([FromShim.Done], (text) => {
      log += text;
    });
    await assert.rejects(told, /ended/);
    assert.match(log, /extension-a got .*"SHUTDOWN","shutdownReason":"spindown"/);
  });

  test("one that crashes fails the invocation; all start again", async () => {
    await using shim = await HostShim.start(programs, programs.opt(["extension-crash"]));
    await shim.driver.configure(shim.fields());
    const { failure, alive, done } = await shim.driver.invoke("sleep");
    assert.equal(failure?.outcome, FailureOutcome.Exited);
    assert.equal(failure?.errorType, "Extension.Crash");
    assert.equal(failure?.exitCode, 5);
    assert.equal(alive, false);
    assert.notEqual(done, null);
  });

  test("one that never registers holds the init up until it is cut off", async () => {
    await using shim = await HostShim.start(programs, programs.opt(["extension-silent"]));
    const init = await shim.driver.configure([...shim.fields(), [ConfigureField.InitTimeoutMs, 300]]);
    assert.equal(init.frame.type, FromShim.InitFailed);
    assert.equal(readFailure(init.reader)?.outcome, FailureOutcome.TimedOut);
  });
});

describe("the same under sanitizers as in a guest", () => {
  test("answers, failures, exits and new starts", async () => {
    await using shim = await HostShim.start(programs);
    await shim.driver.configure(shim.fields());
    assert.equal((await shim.driver.invoke("stream 50 70000")).body.length, 3_500_000);
    assert.equal((await shim.driver.invoke("fail-trailer")).failure?.errorType, "Function.Oops");
    assert.equal((await shim.driver.invoke("cut")).failure?.outcome, FailureOutcome.Truncated);
    assert.equal((await shim.driver.invoke("exit 9")).failure?.exitCode, 9);
    assert.equal((await shim.driver.invoke("size 6291557")).failure?.outcome, FailureOutcome.ResponseTooLarge);
    assert.equal((await shim.driver.invoke("flood", { timeoutMs: 300 })).failure?.outcome, FailureOutcome.TimedOut);
    assert.equal((await shim.driver.invoke("log 5000")).stdout.split("\n").length, 5002);
    const large = "y".repeat(5_000_000);
    assert.equal((await shim.driver.invoke(`echo ${large}`)).body.toString(), large);
    assert.equal((await shim.driver.invoke("connections 100")).failure, null);
  });
});
