import { NET_BATCH_FRAMES, NET_FRAME_BYTES_MAX } from "../limits.ts";
import type { WatchOwner } from "../poller.ts";

/**
 * Ethernet frames on their way between a guest and its port, as bytes of our own: the guest may change its memory at
 * any moment. Each has a virtio header before it (`frame-header.ts`). Frame i begins at i times NET_FRAME_BYTES_MAX.
 * One batch serves all devices of a process, because nothing stays in it beyond a turn.
 */
export class FrameBatch {
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(NET_BATCH_FRAMES * NET_FRAME_BYTES_MAX);
  readonly view: DataView<ArrayBuffer> = new DataView(this.bytes.buffer);
  /** Bytes of each frame with its header. */
  readonly lengths: Int32Array<ArrayBuffer> = new Int32Array(NET_BATCH_FRAMES);
}

/** Where a network device's frames go and come from: a tap, or whatever else takes Ethernet frames with their headers. */
export interface FramePort {
  /** Puts up to `count` waiting frames into the batch; returns how many. Fewer than asked: no more waits. */
  read(batch: FrameBatch, count: number): number;
  /** Sends the first `count` frames of the batch. What cannot be taken is lost, as on any wire. */
  write(batch: FrameBatch, count: number): void;
  /** Has `owner` call `onReadable` when frames wait that came after a `read` found no more. */
  watch(owner: WatchOwner, onReadable: () => void): Disposable;
}
