import assert from "node:assert/strict";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";

import {
  VSOCK_RECEIVE_BYTES_MAX,
  VSOCK_RESETS_PENDING_MAX,
  VSOCK_STREAMS_MAX,
  VSOCK_UNTOLD_MS_MAX,
} from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import { MEMORY_START, testHost, TestVsockDriver, type TestPacket } from "./testing.ts";
import { VsockOperation } from "./vsock-packet.ts";
import { VsockDevice } from "./vsock.ts";

const PORT = 1024;
const GUEST_PORT = 5000;

const { Request, Response, Reset, Shutdown, ReadWrite, CreditUpdate, CreditRequest } = VsockOperation;

interface Setup {
  readonly guest: TestVsockDriver;
  readonly device: VsockDevice;
  readonly streams: Duplex[];
  readonly errors: DeviceError[];
  /** Sends packets and kicks. */
  readonly send: (...packets: (Partial<TestPacket> & Pick<TestPacket, "operation">)[]) => void;
}

const setUp = (receiveBuffers?: number, entries?: number): Setup => {
  const guest = new TestVsockDriver(entries);
  const streams: Duplex[] = [];
  const errors: DeviceError[] = [];
  const device = new VsockDevice(testHost((error) => errors.push(error)));
  device.listen(PORT, (stream) => streams.push(stream));
  guest.fillReceive(receiveBuffers);
  device.activate(guest.driver());
  const send: Setup["send"] = (...packets) => {
    for (const packet of packets) {
      guest.send({ sourcePort: GUEST_PORT, destinationPort: PORT, ...packet });
      device.kick(1);
    }
  };
  return { guest, device, streams, errors, send };
};

/** With one stream open. */
const open = (): Setup & { readonly stream: Duplex } => {
  const all = setUp();
  all.send({ operation: Request });
  const [stream] = all.streams;
  assert.ok(stream);
  assert.deepEqual(
    all.guest.receive().map(({ operation }) => operation),
    [Response],
  );
  return { ...all, stream };
};

test("a request is answered where somebody listens, and reset where nobody does", () => {
  const { guest, streams, send } = setUp();
  send({ operation: Request }, { operation: Request, destinationPort: 9 });
  assert.deepEqual(
    guest.receive().map(({ operation, sourcePort, destinationPort }) => [operation, sourcePort, destinationPort]),
    [
      [Response, PORT, GUEST_PORT],
      [Reset, 9, GUEST_PORT],
    ],
  );
  assert.equal(streams.length, 1);
  assert.ok(guest.signals.includes(0));
});

test("what comes before the device is opened waits for who listens late", () => {
  const guest = new TestVsockDriver();
  const device = new VsockDevice(testHost((error) => assert.fail(error)));
  device.hold();
  guest.fillReceive();
  guest.send({ operation: Request, sourcePort: GUEST_PORT, destinationPort: PORT });
  device.activate(guest.driver());
  device.kick(1);
  assert.deepEqual(guest.receive(), []);
  let accepted = 0;
  device.listen(PORT, () => accepted++);
  device.open();
  assert.deepEqual(
    guest.receive().map(({ operation }) => operation),
    [Response],
  );
  assert.equal(accepted, 1);
});

test("a guest is told rarely, but is told, that what it sent is done with", async () => {
  const { guest, device, send, streams } = setUp(8, 64);
  send({ operation: Request });
  streams[0]?.resume();
  guest.receive();
  guest.signals.length = 0;
  const told = (): number => guest.signals.filter((queue) => queue === 1).length;
  for (let n = 2; n < 16; n++) send({ operation: ReadWrite, payload: Buffer.from("x") });
  assert.equal(told(), 0);
  send({ operation: ReadWrite, payload: Buffer.from("x") });
  assert.equal(told(), 1, "16 packets");
  send({ operation: ReadWrite, payload: Buffer.from("x") });
  assert.equal(told(), 1);
  await sleep(VSOCK_UNTOLD_MS_MAX + 20);
  assert.equal(told(), 2, "a while after the last");
  send(
    { operation: ReadWrite, payload: Buffer.alloc(60_000) },
    { operation: ReadWrite, payload: Buffer.alloc(60_000) },
  );
  assert.equal(told(), 2);
  send({ operation: ReadWrite, payload: Buffer.alloc(60_000) });
  assert.equal(told(), 3, "many bytes");
  device[Symbol.dispose]();
});

test("data goes both ways", async () => {
  const { guest, stream, send } = open();
  const got: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => got.push(chunk));
  await turn();
  send({ operation: ReadWrite, payload: Buffer.from("to the host") });
  assert.equal(String(Buffer.concat(got)), "to the host");
  stream.write("to ");
  stream.write("the guest");
  await turn();
  assert.equal(
    guest
      .receive()
      .map(({ payload }) => String(payload))
      .join(""),
    "to the guest",
  );
});

test("the guest's credit is kept to", async () => {
  const { guest, device, stream, send } = open();
  /** Bytes that arrive while the guest offers its buffers again and again. */
  const drain = async (): Promise<number> => {
    let total = 0;
    for (let idle = 0; idle < 5; idle++) {
      await turn();
      for (const { payload } of guest.receive()) {
        total += payload.length;
        idle = 0;
      }
      device.kick(0);
    }
    return total;
  };
  // The guest announced a buffer of 64 KiB with its request.
  stream.write(Buffer.alloc(100_000, 1));
  assert.equal(await drain(), 65_536);
  send({ operation: CreditUpdate, forwarded: 1000 });
  assert.equal(await drain(), 1000);
  send({ operation: CreditUpdate, forwarded: 66_536 });
  assert.equal(await drain(), 100_000 - 66_536);
});

test("a guest that sends beyond its credit loses the stream", async () => {
  const { guest, stream, send, errors } = open();
  const closed = new Promise((resolve) => stream.once("close", resolve));
  for (let sent = 0; sent <= VSOCK_RECEIVE_BYTES_MAX; sent += 32_768)
    send({ operation: ReadWrite, payload: new Uint8Array(32_768) });
  await closed;
  assert.match(String(stream.errored), /broke the vsock protocol/);
  assert.ok(guest.receive().some(({ operation }) => operation === Reset));
  assert.deepEqual(errors, []);
});

test("credit for bytes that were never sent costs the stream", async () => {
  const { stream, send } = open();
  const closed = new Promise((resolve) => stream.once("close", resolve));
  send({ operation: CreditUpdate, forwarded: 1 });
  await closed;
  assert.match(String(stream.errored), /broke the vsock protocol/);
});

test("reading gives credit back", async () => {
  const { guest, stream, send } = open();
  for (let i = 0; i < 4; i++) send({ operation: ReadWrite, payload: new Uint8Array(32_768) });
  await turn();
  assert.deepEqual(guest.receive(), []);
  assert.equal((stream.read() as Buffer).length, 131_072);
  await turn();
  const [update] = guest.receive();
  assert.deepEqual([update?.operation, update?.forwarded], [CreditUpdate, 131_072]);
  send({ operation: CreditRequest });
  assert.equal(guest.receive()[0]?.operation, CreditUpdate);
});

test("half-close, and the close that follows", async () => {
  const { guest, stream, send } = open();
  const ended = new Promise((resolve) => stream.once("end", resolve));
  stream.resume();
  send({ operation: Shutdown, flags: 2 });
  await ended;
  stream.end("last words");
  await turn();
  await turn();
  const packets = guest.receive();
  assert.equal(String(packets[0]?.payload), "last words");
  const last = packets.at(-1);
  assert.deepEqual([last?.operation, last?.flags], [Shutdown, 3]);
  send({ operation: Reset, forwarded: 10 });
  assert.equal(stream.errored, null);
  assert.deepEqual(guest.receive(), []);
});

test("a full close is confirmed by a reset, and later writes fail", async () => {
  const { guest, stream, send } = open();
  send({ operation: Shutdown, flags: 3 });
  assert.deepEqual(
    guest.receive().map(({ operation }) => operation),
    [Reset],
  );
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => stream.once("error", resolve));
  stream.write("too late");
  assert.equal((await failed).code, "EPIPE");
});

test("destroying a stream resets it; a reset destroys it", async () => {
  const mine = open();
  mine.stream.destroy();
  await turn();
  assert.deepEqual(
    mine.guest.receive().map(({ operation }) => operation),
    [Reset],
  );
  const theirs = open();
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => theirs.stream.once("error", resolve));
  theirs.send({ operation: Reset });
  assert.equal((await failed).code, "ECONNRESET");
});

test("the host connects, is accepted or refused", async () => {
  const { guest, device, send } = setUp();
  const accepted = device.connect(77);
  const refused = device.connect(78);
  await turn();
  const [first, second] = guest.receive();
  assert.deepEqual([first?.operation, first?.destinationPort, second?.destinationPort], [Request, 77, 78]);
  send({ operation: Response, sourcePort: 77, destinationPort: first?.sourcePort ?? 0 });
  send({ operation: Reset, sourcePort: 78, destinationPort: second?.sourcePort ?? 0 });
  assert.equal((await accepted).writable, true);
  await assert.rejects(refused, /Nobody in the guest listens on vsock port 78/);
});

test("streams beyond the limit are reset", () => {
  const { guest, streams, send } = setUp();
  const answers: number[] = [];
  for (let i = 0; i < VSOCK_STREAMS_MAX + 3; i++) {
    send({ operation: Request, sourcePort: i });
    for (const { operation } of guest.receive()) answers.push(operation);
  }
  assert.equal(streams.length, VSOCK_STREAMS_MAX);
  assert.deepEqual(answers.slice(-4), [Response, Reset, Reset, Reset]);
});

test("resets that cannot be delivered stop the guest's transmit queue", () => {
  const { guest, send } = setUp(0);
  for (let i = 0; i < VSOCK_RESETS_PENDING_MAX + 3; i++) send({ operation: ReadWrite, sourcePort: i });
  assert.equal(guest.queue(1).takeUsed().length, VSOCK_RESETS_PENDING_MAX);
});

test("packets to others, and of unknown types or operations, are reset", () => {
  const { guest, send } = setUp();
  send({ operation: Request, type: 2 }, { operation: 99 });
  assert.deepEqual(
    guest.receive().map(({ operation }) => operation),
    [Reset, Reset],
  );
});

test("packets that cannot be end in DeviceError", () => {
  const { guest, device, send } = setUp();
  assert.throws(() => send({ operation: ReadWrite, length: 10 }), DeviceError);
  assert.throws(() => send({ operation: ReadWrite, length: 0xffff_ffff }), DeviceError);
  guest.queue(1).describe(0, { address: MEMORY_START + 0x8_0000, length: 43, flags: 0, next: 0 });
  guest.queue(1).offer(0);
  assert.throws(() => device.kick(1), DeviceError);
});

test("a bad receive buffer found while a stream writes is reported, not thrown", async () => {
  const { guest, stream, errors } = open();
  for (let i = 0; i < 8; i++) guest.queue(0).describe(i, { address: 0, length: 4096, flags: 2, next: 0 });
  stream.write("x");
  await turn();
  assert.equal(errors.length, 1);
});

test("the end of the device ends its streams and connections", async () => {
  const { device, stream } = open();
  const failed = new Promise<Error>((resolve) => stream.once("error", resolve));
  const connecting = device.connect(77);
  device[Symbol.dispose]();
  assert.match(String(await failed), /gone/);
  await assert.rejects(connecting, /gone/);
  await assert.rejects(device.connect(77), /gone/);
});
