import { close } from "node:fs";

import type { FrameBatch, FramePort } from "./devices/frames.ts";
import { native } from "./native.ts";
import { Watch, type WatchOwner } from "./poller.ts";

/** A tap device by its descriptor, which it owns. With the descriptor goes the tap, and what holds on to nothing else. */
export class Tap implements FramePort, Disposable {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(batch: FrameBatch, count: number): number {
    // A tap that is down has nothing to read either.
    return Math.max(0, native().readFrames(this.#fd, batch.bytes, batch.lengths, count));
  }

  write(batch: FrameBatch, count: number): void {
    native().writeFrames(this.#fd, batch.bytes, batch.lengths, count);
  }

  watch(owner: WatchOwner, onReadable: () => void): Disposable {
    return new Watch(this.#fd, owner, onReadable);
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    // Not here and now: the kernel may let us wait for its lock on all links.
    close(this.#fd, () => {});
    this.#fd = -1;
  }
}
