import { seededBelow } from "../../lib/random.ts";
import assert from "node:assert/strict";
import { test } from "node:test";

import { DeviceError } from "./device-error.ts";
import { FrameBatch } from "./frames.ts";
import { frameOf, TestNetDriver, TestPort } from "./net-testing.ts";
import { NetDevice } from "./net.ts";
import { MEMORY_BYTES, MEMORY_START, putOff, testHost } from "./testing.ts";

/*
 * A hostile driver against the network device: well-formed traffic with, now and then, something that cannot be.
 * Whatever it does, nothing but a DeviceError may come of it, nothing outside of its memory may change, and nothing
 * but IPv4 and ARP may leave.
 *
 * FUZZ_SEED=n repeats one run, FUZZ_RUNS=n makes more of them.
 */

/** Seeds that once failed; they are run every time. */
const CORPUS: readonly number[] = [];
const RUNS = Number(process.env["FUZZ_RUNS"] ?? 300);
const STEPS = 120;
const MTU = 1500;
const INTERESTING = [0, 1, 11, 12, 13, 26, 1514, 1526, 1527, 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

class Fuzzer {
  readonly #below: (below: number) => number;
  readonly #guest = new TestNetDriver();
  readonly #port = new TestPort();
  readonly #later: (() => void)[] = [];
  readonly #device: NetDevice;
  #broken = false;

  constructor(seed: number) {
    this.#below = seededBelow(seed);
    const host = testHost(() => (this.#broken = true), putOff(this.#later));
    this.#device = new NetDevice(new FrameBatch(), MTU, host);
  }

  run(): void {
    this.#guarded(() => this.#device.activate(this.#guest.driver()));
    this.#device.bind(this.#port);
    for (let step = 0; step < STEPS && !this.#broken; step++) {
      this.#guarded(() => this.#step());
      if (this.#below(3) === 0) this.#later.shift()?.();
    }
    this.#device[Symbol.dispose]();
    for (const work of this.#later) work();
    assert.ok(this.#guest.guardsIntact(), "memory around the guest's was written");
    for (const [i, frame] of this.#port.sent.entries()) {
      const isCut = this.#port.headers[i]?.[1] === 1;
      assert.ok(frame.length >= 14 && (isCut || frame.length <= MTU + 14));
      assert.ok([0x0800, 0x0806].includes(frame.readUInt16BE(12)));
    }
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      this.#broken = true;
    }
  }

  #number(): number {
    return this.#below(2) === 0 ? this.#below(3000) : (INTERESTING[this.#below(INTERESTING.length)] ?? 0);
  }

  #step(): void {
    switch (this.#below(9)) {
      case 0:
        return this.#hostile();
      case 1:
      case 2:
        return this.#guest.fillReceive(1 + this.#below(4), this.#below(2) * 14);
      case 3:
        return this.#device.kick(this.#below(2));
      case 4:
        this.#guest.receive();
        return;
      case 5:
      case 6:
        return this.#port.arrive(...Array.from({ length: this.#below(6) }, () => frameOf(14 + this.#below(1500))));
      default:
        this.#guest.send(
          frameOf(this.#below(1600), this.#below(256), [0x0800, 0x0806, 0x86dd, 0][this.#below(4)] ?? 0),
          0,
          Buffer.from(Array.from({ length: 12 }, () => this.#below(this.#below(2) === 0 ? 2 : 256))),
        );
        this.#device.kick(1);
    }
  }

  #hostile(): void {
    const queue = this.#guest.queue(this.#below(2));
    switch (this.#below(5)) {
      case 0:
        queue.describe(this.#below(16), {
          address: this.#below(3) === 0 ? this.#number() * this.#number() : MEMORY_START + this.#below(MEMORY_BYTES),
          length: this.#number(),
          flags: this.#below(8),
          next: this.#below(18),
        });
        queue.offer(this.#below(17));
        break;
      case 1:
        queue.setAvailable(this.#number() & 0xffff);
        break;
      case 2:
        queue.setFlags(this.#below(4));
        break;
      case 3:
        // Scribbles over rings and frames alike.
        for (let i = this.#below(20); i >= 0; i--)
          this.#guest.bytes[this.#below(this.#below(2) === 0 ? 0x4000 : MEMORY_BYTES)] = this.#below(256);
        break;
      default:
        queue.offer(this.#below(16));
    }
    this.#device.kick(this.#below(2));
  }
}

test("a hostile driver gets nothing but DeviceErrors", (context) => {
  const wanted = process.env["FUZZ_SEED"];
  const first = Math.floor(Math.random() * 0x1_0000_0000);
  const seeds =
    wanted === undefined ? [...CORPUS, ...Array.from({ length: RUNS }, (_, i) => (first + i) >>> 0)] : [Number(wanted)];
  context.diagnostic(`seeds from ${String(first)}`);
  for (const seed of seeds) {
    try {
      new Fuzzer(seed).run();
    } catch (error) {
      throw new Error(`FUZZ_SEED=${String(seed)} failed; add it to CORPUS once it is mended`, { cause: error });
    }
  }
});
