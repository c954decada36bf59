import { closeSync, openSync } from "node:fs";

import type { Timer } from "../../../lib/clock.ts";
import type { DeviceHost } from "../../devices/virtio-device.ts";
import { CONSOLE_BYTES_PER_TURN_MAX } from "../../limits.ts";
import { checked, native } from "../../native.ts";
import { Watch } from "../../poller.ts";

const CHUNK_BYTES = 16 * 1024;

/** The console of a guest: its output as it comes, its input from a stream. Nobody listening means /dev/null. */
export class ConsolePipe implements Disposable {
  readonly #host: DeviceHost;
  readonly #onOutput: ((chunk: Uint8Array) => void) | null;
  readonly #stack = new DisposableStack();
  /** The child's ends; closed on our side by `started`. */
  readonly #childEnds = new DisposableStack();
  #output: number;
  #later: Timer | null = null;
  readonly descriptors: readonly [stdin: number, stdout: number, stderr: number];

  /** Throws, with nothing left, when there are no descriptors for it. */
  constructor(host: DeviceHost, onOutput: ((chunk: Uint8Array) => void) | null, input: NodeJS.ReadableStream | null) {
    this.#host = host;
    this.#onOutput = onOutput;
    this.#output = -1;
    using setup = new DisposableStack();
    setup.use(this.#childEnds);
    setup.use(this.#stack);
    const none = openSync("/dev/null", "r+");
    this.#childEnds.defer(() => closeSync(none));
    let [stdin, stdout] = [none, none];
    if (onOutput !== null) {
      const [ours, theirs] = this.#pipe(0);
      this.#output = ours;
      stdout = theirs;
      this.#own(ours);
      this.#childEnds.defer(() => native().close(theirs));
      this.#stack.use(new Watch(ours, host, () => this.#read()));
    }
    if (input !== null) {
      const [theirs, ours] = this.#pipe(1);
      stdin = theirs;
      this.#own(ours);
      this.#childEnds.defer(() => native().close(theirs));
      const write = (chunk: string | Buffer): void => {
        // What a guest does not read while its pipe is full is lost, as on a serial line.
        native().write(ours, typeof chunk === "string" ? Buffer.from(chunk) : chunk);
      };
      input.on("data", write);
      this.#stack.defer(() => input.off("data", write));
    }
    // UML's own messages about the host go to stderr, before its console is up.
    this.descriptors = [stdin, stdout, stdout];
    setup.move();
  }

  /** The child has its ends; ours of them are closed, so that the end of the child is the end of the output. */
  started(): void {
    this.#childEnds.dispose();
  }

  /** Hands over what has come so far. */
  drain(): void {
    if (this.#output >= 0) this.#read();
  }

  [Symbol.dispose](): void {
    this.#childEnds.dispose();
    this.drain();
    this.#stack.dispose();
  }

  #own(fd: number): void {
    this.#stack.defer(() => native().close(fd));
  }

  #pipe(ours: 0 | 1): [reading: number, writing: number] {
    const ends = new Int32Array(2);
    checked("Make a pipe", native().pipe(ends, ours));
    return [ends[0] ?? -1, ends[1] ?? -1];
  }

  /** A guest may write as fast as this reads: the rest waits for a later turn, and the guest for that. */
  #read(): void {
    if (this.#later !== null || this.#stack.disposed) return;
    for (let bytes = 0; bytes < CONSOLE_BYTES_PER_TURN_MAX; bytes += CHUNK_BYTES) {
      const chunk = new Uint8Array(CHUNK_BYTES);
      const count = native().read(this.#output, chunk);
      if (count <= 0) return;
      this.#onOutput?.(chunk.subarray(0, count));
    }
    this.#later = this.#host.clock.soon(() => {
      this.#later = null;
      this.#read();
    });
  }
}
