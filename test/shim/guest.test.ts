import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { decodeFields } from "../../src/wire/shim-codec.ts";
import {
  ConfigureField,
  DoneField,
  FailureOutcome,
  FromShim,
  InvokeField,
  ReadyField,
  ShutdownField,
  StatusField,
  ToShim,
} from "../../src/wire/shim-protocol.ts";
import type { Field } from "../../src/wire/shim-protocol.ts";
import { readFailure } from "./driver.ts";
import { ShimGuest, ShimImages } from "./guest.ts";

const MIB = 1024 * 1024;
const images = new ShimImages();
after(() => images[Symbol.dispose]());

let count = 0;
const boot = (): Promise<ShimGuest> => ShimGuest.boot(images, `shim-${++count}`);

/** A guest whose runtime is ready. */
const ready = async (more: readonly Field[] = []): Promise<ShimGuest> => {
  const guest = await boot();
  const { frame, reader } = await guest.driver.configure(guest.fields(more));
  assert.equal(frame.type, FromShim.Ready);
  assert.ok((reader.number(ReadyField.InitDurationUs) ?? 0) > 0);
  return guest;
};

describe("a sandbox", () => {
  test("serves one event after the other, and many bytes both ways", async () => {
    await using guest = await ready();
    const first = await guest.driver.invoke("echo one");
    assert.equal(first.body.toString(), "one");
    assert.equal(first.failure, null);
    assert.equal(first.alive, true);
    assert.equal(first.contentType, "application/json");
    assert.equal(first.streaming, false);
    assert.deepEqual(first.order, [FromShim.ResponseHead, FromShim.ResponseData, FromShim.ResponseEnd, FromShim.Done]);
    const large = `echo ${"x".repeat(6 * MIB - 5)}`;
    const second = await guest.driver.invoke(large);
    assert.equal(second.body.toString(), large.slice(5));
    const empty = await guest.driver.invoke("size 0");
    assert.equal(empty.body.length, 0);
    assert.equal(empty.failure, null);
  });

  test("gives the runtime the headers of the event, and none that a value could smuggle in", async () => {
    await using guest = await ready();
    const { body, requestId } = await guest.driver.invoke("head", {
      fields: [
        [InvokeField.TraceId, "Root=1-2"],
        [InvokeField.ClientContext, '{"a":1}\r\nInjected: yes'],
        [InvokeField.TenantId, "tenant"],
      ],
    });
    const lines = body.toString().split("\r\n");
    assert.ok(lines.includes(`Lambda-Runtime-Aws-Request-Id: ${requestId}`));
    assert.ok(lines.includes("Lambda-Runtime-Trace-Id: Root=1-2"));
    assert.ok(lines.includes('Lambda-Runtime-Client-Context: {"a":1}  Injected: yes'));
    assert.ok(lines.includes("Lambda-Runtime-Aws-Tenant-Id: tenant"));
    assert.ok(lines.some((line) => /^Lambda-Runtime-Deadline-Ms: \d{13}$/.test(line)));
    assert.ok(!lines.some((line) => line.startsWith("Lambda-Runtime-Cognito-Identity")));
  });

  test("shows the function Lambda's world and nothing of the machine", async () => {
    await using guest = await ready();
    const text = (await guest.driver.invoke("who")).body.toString();
    assert.match(text, /^uid 993 gid 993 groups 0 cwd \/var\/task tmp 1777 pids 1 files 1024 stdout 0 shm 0 /);
    // EAFNOSUPPORT, ENOSYS, ENOSPC (no user namespaces), EROFS, no knob, no drive, EPERM.
    assert.match(
      text,
      / vsock 97 uring 38 userns 28 root-write 30 sysctl (13|30) sysrq (2|13) kmsg (2|13) ubd 2 init 1 /,
    );
    assert.match(text, /CapPrm: 0000000000000000;CapEff: 0000000000000000;CapBnd: 0000000000000000;/);
    assert.match(text, /NoNewPrivs: 1; env hello$/);
  });

  test("relays a stream as it comes, with its end, and an error in its trailers", async () => {
    await using guest = await ready();
    let pieces = 0;
    const good = await guest.driver.invoke("stream 300 10000", { onData: () => void pieces++ });
    assert.equal(good.streaming, true);
    assert.equal(good.contentType, "text/plain");
    assert.equal(good.body.length, 3_000_000);
    assert.ok(pieces > 5, `${pieces} pieces`);
    assert.equal(good.failure, null);
    const bad = await guest.driver.invoke("fail-trailer");
    assert.equal(bad.body.toString(), "aaaaa");
    assert.equal(bad.failure?.outcome, FailureOutcome.Reported);
    assert.equal(bad.failure?.errorType, "Function.Oops");
    assert.equal(bad.failure?.errorBody, '{"errorMessage":"oops"}');
    const cut = await guest.driver.invoke("cut");
    assert.equal(cut.body.toString(), "hello");
    assert.equal(cut.failure?.outcome, FailureOutcome.Truncated);
    assert.equal(cut.alive, true);
  });

  test("holds the function back while the host does not read", async () => {
    await using guest = await ready();
    guest.driver.pause();
    const invoked = guest.driver.invoke("stream 1000 20000", {
      fields: [[InvokeField.ResponseBytesMax, 30 * MIB]],
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    guest.driver.resume();
    const { body, failure } = await invoked;
    assert.equal(body.length, 20_000_000);
    assert.equal(failure, null);
  });

  test("sends all output of an invocation before its Done", async () => {
    await using guest = await ready();
    const { stdout, stderr, order } = await guest.driver.invoke("log 20000");
    const lines = stdout.split("\n");
    assert.equal(lines[0], "line 0");
    assert.equal(lines[19_999], "line 19999");
    assert.equal(lines[20_000], "after the answer");
    assert.match(stderr, /to stderr/);
    assert.equal(order.at(-1), FromShim.Done);
  });

  test("keeps the Runtime API's rules", async () => {
    await using guest = await ready();
    assert.equal((await guest.driver.invoke("wrong-id")).body.toString(), "400 404 403");
    const twice = await guest.driver.invoke("twice");
    assert.equal(twice.body.toString(), "first");
    assert.match(twice.stderr, /statuses 202 403/);
    const large = await guest.driver.invoke("size 6291557");
    assert.equal(large.failure?.outcome, FailureOutcome.ResponseTooLarge);
    assert.match(large.stderr, /status 413/);
    const error = await guest.driver.invoke("error Function.Custom");
    assert.equal(error.failure?.outcome, FailureOutcome.Reported);
    assert.equal(error.failure?.errorType, "Function.Custom");
    assert.equal(error.failure?.errorBody, '{"errorMessage":"bad"}');
    assert.equal((await guest.driver.invoke("error what ever")).failure?.errorType, "Runtime.Unknown");
    assert.equal((await guest.driver.invoke("echo still here")).body.toString(), "still here");
  });

  test("bounds the connections", async () => {
    await using guest = await ready();
    const open = Number((await guest.driver.invoke("connections 200")).body.toString());
    assert.ok(open > 10 && open < 64, `${open} open`);
    assert.equal((await guest.driver.invoke("echo fine")).body.toString(), "fine");
  });

  test("answers on Lambda's address too", async () => {
    await using guest = await ready([[ConfigureField.Environment, "API_ADDRESS=169.254.100.1"]]);
    assert.equal((await guest.driver.invoke("echo here")).body.toString(), "here");
  });
});

describe("failures", () => {
  test("exits and signals are told exactly; the next invocation starts anew with /tmp kept", async () => {
    await using guest = await ready();
    assert.equal((await guest.driver.invoke("file-write")).body.toString(), "written");
    const exited = await guest.driver.invoke("exit 7");
    assert.equal(exited.failure?.outcome, FailureOutcome.Exited);
    assert.equal(exited.failure?.exitCode, 7);
    assert.equal(exited.failure?.signal, null);
    assert.equal(exited.alive, false);
    assert.equal(exited.stdout, "last words");
    assert.equal(exited.order.at(-1), FromShim.Done);
    const next = await guest.driver.invoke("file-read");
    assert.equal(next.body.toString(), "kept");
    assert.ok((next.done.number(DoneField.InitDurationUs) ?? 0) > 0);
    assert.equal(next.alive, true);
    for (const [event, signal] of [
      ["signal 11", 11],
      ["signal 9", 9],
      ["abort", 6],
    ] as const) {
      const { failure } = await guest.driver.invoke(event);
      assert.equal(failure?.outcome, FailureOutcome.Exited, event);
      assert.equal(failure?.signal, signal, event);
    }
    const late = await guest.driver.invoke("answered-exit");
    assert.equal(late.failure, null);
    assert.equal(late.body.toString(), "bye");
    assert.equal(late.alive, false);
    assert.equal(late.done.number(DoneField.Outcome), FailureOutcome.Exited);
    assert.equal(late.done.number(DoneField.ExitCode), 7);
    assert.equal((await guest.driver.invoke("echo back")).done.number(DoneField.InitDurationUs) !== null, true);
  });

  test("a deadline ends everything, also when it passes after the answer", async () => {
    await using guest = await ready();
    const slow = await guest.driver.invoke("sleep", { timeoutMs: 300 });
    assert.equal(slow.failure?.outcome, FailureOutcome.TimedOut);
    assert.equal(slow.alive, false);
    assert.equal((await guest.driver.invoke("echo again")).body.toString(), "again");
    const late = await guest.driver.invoke("answered-sleep", { timeoutMs: 300 });
    assert.equal(late.failure, null);
    assert.equal(late.body.toString(), "bye");
    assert.equal(late.alive, false);
    assert.equal(late.done.number(DoneField.Outcome), FailureOutcome.TimedOut);
  });

  test("a function is stopped at its deadline, by its own clock, and however busy it is", async () => {
    await using guest = await ready();
    for (const [children, payloadDelayMs] of [
      [0, 0],
      [40, 0],
      // An event that takes its time to come in takes nothing from the function's.
      [0, 600],
    ] as const) {
      const invoked = await guest.driver.invoke(`tick ${String(children)}`, { timeoutMs: 500, payloadDelayMs });
      const { failure, stdout } = invoked;
      assert.equal(failure?.outcome, FailureOutcome.TimedOut);
      const [, deadline, begin] = /^deadline (\d+) begin (\d+)$/m.exec(stdout) ?? [];
      const leftMs = Number(deadline) - Number(begin) / 1000;
      const lastMs = Math.max(...stdout.split("\n").map((line) => (/^\d{16}$/.test(line) ? Number(line) / 1000 : 0)));
      // Never early, and late by no more than a machine that is busy with other tests may be.
      assert.ok(leftMs > 100 && leftMs <= 501, `${leftMs} ms were left at its beginning`);
      assert.ok((failure?.durationUs ?? 0) >= 499_000, `${failure?.durationUs} us`);
      assert.ok(lastMs <= Number(deadline) + 200, `it ran for ${lastMs - Number(deadline)} ms after its deadline`);
    }
  });

  test("running out of memory is told apart from being killed", async () => {
    await using guest = await ready();
    const small = await guest.driver.invoke(`memory ${40 * MIB}`);
    assert.equal(small.body.toString(), "touched");
    const peak = small.done.number(DoneField.MemoryBytesPeak) ?? 0;
    assert.ok(peak >= 40 * MIB && peak < 44 * MIB, `${peak} bytes`);
    const large = await guest.driver.invoke(`memory ${200 * MIB}`);
    assert.equal(large.failure?.outcome, FailureOutcome.OutOfMemory);
    assert.equal(large.failure?.signal, 9);
    const limit = large.done.number(DoneField.MemoryBytesPeak) ?? 0;
    assert.ok(limit > 120 * MIB && limit <= 128 * MIB, `${limit} bytes`);
    assert.equal((await guest.driver.invoke("echo alive")).body.toString(), "alive");
  });

  test("forking without end and writing without end stop at the deadline", async () => {
    await using guest = await ready();
    for (const event of ["fork", "flood"]) {
      const { failure, alive } = await guest.driver.invoke(event, { timeoutMs: 500 });
      assert.equal(failure?.outcome, FailureOutcome.TimedOut, event);
      assert.equal(alive, false);
    }
    guest.driver.send(ToShim.Query);
    const status = decodeFields((await guest.driver.until([FromShim.Status])).payload);
    assert.equal(status.number(StatusField.Pids), 0);
    assert.equal((await guest.driver.invoke("echo on")).body.toString(), "on");
  });

  test("a broken init is told once; the next invocation tries again", async () => {
    await using guest = await boot();
    const init = await guest.driver.configure(guest.fields([[ConfigureField.Environment, "INIT=once"]]));
    assert.equal(init.frame.type, FromShim.InitFailed);
    const failure = readFailure(init.reader);
    assert.equal(failure?.outcome, FailureOutcome.Reported);
    assert.equal(failure?.errorType, "Runtime.Broken");
    assert.equal(failure?.errorBody, '{"errorMessage":"init"}');
    assert.match(init.log, /init error: 202/);
    const next = await guest.driver.invoke("echo better");
    assert.equal(next.body.toString(), "better");
    assert.ok((next.done.number(DoneField.InitDurationUs) ?? 0) > 0);
  });

  test("an init that exits or takes too long fails, and fails again inside the invocation", async () => {
    for (const [how, outcome] of [
      ["exit", FailureOutcome.Exited],
      ["sleep", FailureOutcome.TimedOut],
    ] as const) {
      await using guest = await boot();
      const fields = guest.fields([[ConfigureField.Environment, `INIT=${how}`]]);
      const init = await guest.driver.configure([...fields, [ConfigureField.InitTimeoutMs, 300]]);
      assert.equal(init.frame.type, FromShim.InitFailed);
      assert.equal(readFailure(init.reader)?.outcome, outcome);
      const next = await guest.driver.invoke("echo never", { timeoutMs: 400 });
      assert.equal(next.failure?.outcome, outcome);
      assert.equal(next.alive, false);
    }
  });

  test("a runtime that cannot be started says why", async () => {
    await using guest = await boot();
    const fields = guest.fields().map((f): Field => (f[0] === ConfigureField.Argument ? [f[0], "/var/task/none"] : f));
    const init = await guest.driver.configure(fields);
    const failure = readFailure(init.reader);
    assert.equal(failure?.outcome, FailureOutcome.NotStarted);
    assert.equal(failure?.errorBody, "fork/exec /var/task/none: no such file or directory");
  });
});

describe("the host's frames", () => {
  test("what is malformed or out of turn is a Fault", async () => {
    const cases: readonly [string, (guest: ShimGuest) => void, RegExp][] = [
      ["unknown type", (g) => g.driver.write(Uint8Array.of(0, 0, 0, 0, 0x77, 0, 0, 0)), /unknown type/],
      ["long frame", (g) => g.driver.write(Uint8Array.of(0, 0, 0, 1, 1, 0, 0, 0)), /malformed frame/],
      ["Invoke too early", (g) => void g.driver.begin("echo"), /not ready/],
      ["no runtime", (g) => g.driver.send(ToShim.Configure), /no absolute path/],
      [
        "no drive",
        (g) =>
          g.driver.send(ToShim.Configure, [
            [4, "/x"],
            [2, "/proc/version"],
          ]),
        /cannot mount drive/,
      ],
      ...[
        ["no prefix", "169.254.76.2", "169.254.76.1", /malformed network address/],
        ["a prefix too long", "169.254.76.2/33", "169.254.76.1", /malformed network address/],
        ["no address", "localhost/30", "169.254.76.1", /malformed network address/],
        ["a gateway that is none", "169.254.76.2/30", "", /malformed network gateway/],
        ["a network without a card", "169.254.76.2/30", "169.254.76.1", /eth0: No such device/],
      ].map(([name, address, gateway, expected]): [string, (guest: ShimGuest) => void, RegExp] => [
        name as string,
        (g) => {
          const network: Field[] = [
            [ConfigureField.NetworkAddress, address as string],
            [ConfigureField.NetworkGateway, gateway as string],
          ];
          g.driver.send(ToShim.Configure, g.fields(network));
        },
        expected as RegExp,
      ]),
    ];
    for (const [name, act, expected] of cases) {
      await using guest = await boot();
      act(guest);
      await assert.rejects(guest.driver.frame(), expected, name);
    }
  });

  test("Shutdown ends the guest", async () => {
    await using guest = await ready();
    guest.driver.send(ToShim.Shutdown, [
      [ShutdownField.Reason, "spindown"],
      [ShutdownField.GraceMs, 500],
    ]);
    await guest.driver.gone();
  });

  test("the end of the stream ends the guest", async () => {
    await using guest = await ready();
    guest.driver.destroy();
    assert.notEqual((await guest.vm.exited).cause, "killed");
  });
});

describe("drives", () => {
  test("layers are stacked at /opt, later ones over earlier ones, and root drives over the base", async () => {
    const layers = [
      images.imageOf("layer0", { "a.txt": "0", "b.txt": "0" }),
      images.imageOf("layer1", { "b.txt": "1" }),
    ];
    const root = images.imageOf("root", { "var/runtime/bootstrap": null });
    await using guest = await ShimGuest.boot(images, `shim-${++count}`, [images.code, root, ...layers]);
    const fields = guest.fields().filter(([key]) => key !== ConfigureField.Argument);
    const { frame } = await guest.driver.configure([
      ...fields,
      [ConfigureField.Argument, "/var/runtime/bootstrap"],
      [ConfigureField.RootDrive, guest.vm.deviceOf(2)],
      [ConfigureField.LayerDrive, guest.vm.deviceOf(3)],
      [ConfigureField.LayerDrive, guest.vm.deviceOf(4)],
    ]);
    assert.equal(frame.type, FromShim.Ready);
    assert.equal((await guest.driver.invoke("cat /opt/a.txt")).body.toString(), "0");
    assert.equal((await guest.driver.invoke("cat /opt/b.txt")).body.toString(), "1");
  });

  test("a runtime that was started before the function's part was mounted sees all of it", async () => {
    const layer = images.imageOf("layer-late", { "a.txt": "layer" });
    const root = images.imageOf("root-early", { "var/runtime/bootstrap": null });
    await using guest = await ShimGuest.boot(images, `shim-${++count}`, [images.code, root, layer]);
    const runtime: Field = [ConfigureField.Argument, "/var/runtime/bootstrap"];
    await guest.driver.prepare([
      runtime,
      [ConfigureField.RootDrive, guest.vm.deviceOf(2)],
      [ConfigureField.Environment, "HEARTH_PREPARED=1"],
      [ConfigureField.PidsMax, 64],
    ]);
    const { frame } = await guest.driver.configure([
      ...guest.fields().filter(([key]) => key !== ConfigureField.Argument),
      runtime,
      [ConfigureField.LayerDrive, guest.vm.deviceOf(3)],
      [ConfigureField.TakePrepared, 1],
    ]);
    assert.equal(frame.type, FromShim.Ready);
    const text = (await guest.driver.invoke("who")).body.toString();
    // The same as of a runtime that is started for its function ("shows the function Lambda's world").
    assert.match(
      text,
      /^uid 993 gid 993 groups 0 cwd \/var\/task tmp 1777 pids 1 files 1024 stdout 0 shm 0 vsock 97 uring 38 userns 28 root-write 30 sysctl (13|30) sysrq (2|13) kmsg (2|13) ubd 2 init 1 /,
    );
    assert.match(text, /CapPrm: 0000000000000000;.*NoNewPrivs: 1; env hello$/);
    assert.equal((await guest.driver.invoke("cat /opt/a.txt")).body.toString(), "layer");
    const pid = (await guest.driver.invoke("pid")).body.toString();
    const { failure, done } = await guest.driver.invoke(`memory ${200 * MIB}`);
    assert.equal(failure?.outcome, FailureOutcome.OutOfMemory);
    const limit = done.number(DoneField.MemoryBytesPeak) ?? 0;
    assert.ok(limit > 120 * MIB && limit <= 128 * MIB, `${limit} bytes`);
    assert.notEqual((await guest.driver.invoke("pid")).body.toString(), pid);
    assert.equal((await guest.driver.invoke("cat /opt/a.txt")).body.toString(), "layer");
  });

  test("a drive attached to the running guest is found", async () => {
    await using guest = await ShimGuest.boot(images, `shim-${++count}`, []);
    const device = await guest.vm.attachDrive(images.code);
    const fields = [
      [ConfigureField.CodeDrive, device],
      [ConfigureField.Argument, "/var/task/bootstrap"],
      [ConfigureField.MemoryBytesMax, 64 * MIB],
    ] as const;
    assert.equal((await guest.driver.configure(fields)).frame.type, FromShim.Ready);
    assert.equal((await guest.driver.invoke("echo found")).body.toString(), "found");
  });
});
