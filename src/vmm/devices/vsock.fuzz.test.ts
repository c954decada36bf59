import assert from "node:assert/strict";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import { seededBelow } from "../../lib/random.ts";
import { VSOCK_RECEIVE_BYTES_MAX } from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import { MEMORY_BYTES, MEMORY_START, testHost, TestVsockDriver } from "./testing.ts";
import { VsockDevice } from "./vsock.ts";

/*
 * A hostile driver against the vsock device: well-formed traffic with, now and then, something that cannot be. Whatever
 * it does, nothing but a DeviceError may come of it, and nothing outside of its memory may change.
 *
 * FUZZ_SEED=n repeats one run, FUZZ_RUNS=n makes more of them.
 */

/** Seeds that once failed; they are run every time. */
const CORPUS: readonly number[] = [];
const RUNS = Number(process.env["FUZZ_RUNS"] ?? 150);
const STEPS = 120;
const PORTS = [1024, 1025, 9];

class Fuzzer {
  readonly #below: (below: number) => number;
  readonly #guest = new TestVsockDriver(8);
  readonly #streams: Duplex[] = [];
  readonly #device: VsockDevice;
  #broken = false;

  constructor(seed: number) {
    this.#below = seededBelow(seed);
    this.#device = new VsockDevice(testHost(() => (this.#broken = true)));
    for (const port of [1024, 1025]) {
      this.#device.listen(port, (stream) => {
        this.#streams.push(stream);
        if (this.#below(2) === 0) stream.resume();
      });
    }
  }

  async run(): Promise<void> {
    this.#guest.fillReceive();
    this.#guarded(() => this.#device.activate(this.#guest.driver()));
    for (let step = 0; step < STEPS && !this.#broken; step++) {
      this.#guarded(() => this.#step());
      if (this.#below(4) === 0) await turn();
      for (const stream of this.#streams) assert.ok(stream.readableLength <= VSOCK_RECEIVE_BYTES_MAX);
    }
    this.#device[Symbol.dispose]();
    await turn();
    assert.ok(this.#guest.guardsIntact(), "memory around the guest's was written");
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      this.#broken = true;
    }
  }

  #step(): void {
    switch (this.#below(12)) {
      case 0:
        return this.#hostile();
      case 1:
        return this.#host();
      case 2:
        this.#guest.receive();
        return this.#device.kick(0);
      default:
        this.#packet();
        return;
    }
  }

  #number(): number {
    const interesting = [
      0, 1, 2, 43, 44, 45, 4095, 4096, 65_535, 65_536, 65_537, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
    ];
    return this.#below(2) === 0 ? this.#below(300) : (interesting[this.#below(interesting.length)] ?? 0);
  }

  #packet(): void {
    const odd = this.#below(10) === 0;
    const payload = this.#below(2) === 0 ? new Uint8Array(this.#below(5000)) : new Uint8Array();
    this.#guest.send({
      sourcePort: 5000 + this.#below(3),
      destinationPort: PORTS[this.#below(PORTS.length)] ?? 0,
      operation: this.#below(odd ? 256 : 8),
      flags: this.#below(4),
      bufferBytes: this.#number(),
      forwarded: odd ? this.#number() : 0,
      ...(odd ? { length: this.#number(), type: this.#below(3) } : {}),
      payload,
    });
    this.#device.kick(1);
  }

  #hostile(): void {
    const queue = this.#guest.queue(this.#below(3));
    switch (this.#below(5)) {
      case 0:
        queue.describe(this.#below(8), {
          address: this.#below(3) === 0 ? this.#number() * this.#number() : MEMORY_START + this.#below(MEMORY_BYTES),
          length: this.#number(),
          flags: this.#below(8),
          next: this.#below(10),
        });
        queue.offer(this.#below(9));
        break;
      case 1:
        queue.setAvailable(this.#number() & 0xffff);
        break;
      case 2:
        queue.setFlags(this.#below(4));
        break;
      case 3:
        // Scribbles over rings and packets alike.
        for (let i = this.#below(20); i >= 0; i--)
          this.#guest.bytes[this.#below(this.#below(2) === 0 ? 0x6000 : MEMORY_BYTES)] = this.#below(256);
        break;
      default:
        queue.offer(this.#below(8));
    }
    this.#device.kick(this.#below(3));
  }

  #host(): void {
    const stream = this.#streams[this.#below(Math.max(this.#streams.length, 1))];
    switch (this.#below(6)) {
      case 0:
        stream?.destroy();
        break;
      case 1:
        if (stream?.writableEnded === false) stream.end();
        break;
      case 2:
        stream?.read();
        break;
      case 3:
        void this.#device.connect(this.#below(100)).then(
          (made) => this.#streams.push(made),
          () => null,
        );
        break;
      default:
        if (stream?.writableEnded === false && !stream.destroyed) stream.write(Buffer.alloc(this.#below(20_000), 7));
    }
  }
}

test("a hostile driver gets nothing but DeviceErrors", async (context) => {
  const wanted = process.env["FUZZ_SEED"];
  const first = Math.floor(Math.random() * 0x1_0000_0000);
  const seeds =
    wanted === undefined ? [...CORPUS, ...Array.from({ length: RUNS }, (_, i) => (first + i) >>> 0)] : [Number(wanted)];
  context.diagnostic(`seeds from ${String(first)}`);
  for (const seed of seeds) {
    try {
      await new Fuzzer(seed).run();
    } catch (error) {
      throw new Error(`FUZZ_SEED=${String(seed)} failed; add it to CORPUS once it is mended`, { cause: error });
    }
  }
});
