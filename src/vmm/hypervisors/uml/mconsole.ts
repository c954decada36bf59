import { constants } from "node:os";

import type { DeviceHost } from "../../devices/virtio-device.ts";
import { MCONSOLE_REPLIES_PER_TURN_MAX, MCONSOLE_RETRY_MS, MCONSOLE_TIMEOUT_MS } from "../../limits.ts";
import { checked, native, NativeError, RECEIVE_DESCRIPTORS_LENGTH } from "../../native.ts";
import { Watch } from "../../poller.ts";

/*
 * UML's management console: datagrams on a Unix socket, arch/um/drivers/mconsole.h.
 * Request: u32 magic, u32 version, u32 length, text. Reply: u32 error, u32 more, u32 length, text.
 */

const MAGIC = 0xcafe_babe;
const VERSION = 2;
const DATA_BYTES_MAX = 512;
const HEADER_BYTES = 12;

/** Errors that mean "the guest's kernel is not that far yet". */
const NOT_YET: ReadonlySet<number> = new Set([
  -constants.errno.ENOENT,
  -constants.errno.ECONNREFUSED,
  -constants.errno.ENOTSOCK,
]);

/** A client of one guest's console. One command at a time. */
export class Mconsole implements Disposable {
  readonly #host: DeviceHost;
  readonly #socket: number;
  readonly #directory: number;
  readonly #path: string;
  readonly #watch: Watch;
  readonly #reply = new Uint8Array(HEADER_BYTES + DATA_BYTES_MAX);
  readonly #descriptors = new Int32Array(RECEIVE_DESCRIPTORS_LENGTH);
  #waiting: ((reply: { readonly failed: boolean; readonly text: string }) => void) | null = null;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;

  /**
   * `own` is where answers arrive: the same path must lead there in the jail. `directory` (a descriptor, the console
   * does not own it) holds the guest's socket at `path`; that directory is the guest's, so links in it are not followed.
   */
  constructor(host: DeviceHost, own: string, directory: number, path: string) {
    this.#host = host;
    this.#directory = directory;
    this.#path = path;
    this.#socket = checked(`Bind ${own}`, native().bindDatagram(own));
    try {
      this.#watch = new Watch(this.#socket, host, () => this.#read());
    } catch (error) {
      native().close(this.#socket);
      throw error;
    }
  }

  /** Runs a command; resolves to its answer. Waits for the guest's kernel to come up. Rejects when it refuses. */
  command(text: string): Promise<string> {
    const result = this.#queue.then(() => this.#run(text));
    this.#queue = result.catch(() => {});
    return result;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch[Symbol.dispose]();
    native().close(this.#socket);
    this.#waiting?.({ failed: true, text: "the microVM is gone" });
  }

  async #run(text: string): Promise<string> {
    if (Buffer.byteLength(text) >= DATA_BYTES_MAX) throw new Error("The console command is too long");
    const deadline = this.#host.clock.monotonicMs() + MCONSOLE_TIMEOUT_MS;
    await this.#send(text, deadline);
    const { promise, resolve } = Promise.withResolvers<{ readonly failed: boolean; readonly text: string }>();
    this.#waiting = resolve;
    const timeout = this.#host.clock.after(deadline - this.#host.clock.monotonicMs(), () => {
      resolve({ failed: true, text: `no answer in ${String(MCONSOLE_TIMEOUT_MS)} ms` });
    });
    this.#read();
    const reply = await promise;
    timeout[Symbol.dispose]();
    this.#waiting = null;
    if (reply.failed) throw new Error(`The guest's console refused "${text}": ${reply.text}`);
    return reply.text;
  }

  async #send(text: string, deadline: number): Promise<void> {
    const data = Buffer.from(`${text}\0`);
    const request = new Uint8Array(HEADER_BYTES + data.length);
    const view = new DataView(request.buffer);
    view.setUint32(0, MAGIC, true);
    view.setUint32(4, VERSION, true);
    view.setUint32(8, data.length - 1, true);
    request.set(data, HEADER_BYTES);
    for (;;) {
      if (this.#closed) throw new Error("The microVM is gone");
      const sent = native().sendDatagram(this.#socket, this.#directory, this.#path, request);
      if (sent >= 0) return;
      if (!NOT_YET.has(sent) || this.#host.clock.monotonicMs() > deadline)
        throw new NativeError("Reach the guest's console", sent);
      await this.#host.clock.sleep(MCONSOLE_RETRY_MS);
    }
  }

  /** The guest may send as fast as this reads: the rest waits for a later turn. */
  #read(): void {
    for (let replies = 0; !this.#closed; replies++) {
      if (replies === MCONSOLE_REPLIES_PER_TURN_MAX) return void this.#host.clock.soon(() => this.#read());
      const count = native().receive(this.#socket, this.#reply, this.#descriptors);
      if (count < 0) return;
      for (let i = 1; i <= (this.#descriptors[0] ?? 0); i++) native().close(this.#descriptors[i] ?? -1);
      if (count < HEADER_BYTES) continue;
      const view = new DataView(this.#reply.buffer);
      const text = Buffer.from(this.#reply.subarray(HEADER_BYTES, count)).toString("latin1").replace(/\0.*$/s, "");
      this.#waiting?.({ failed: view.getUint32(0, true) !== 0, text });
    }
  }
}
