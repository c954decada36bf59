import type { Duplex } from "node:stream";
import type { Clock } from "../lib/clock.ts";
import { encodeBody, encodeFields, encodeFrame, FrameDecoder, ShimProtocolError } from "../wire/shim-codec.ts";
import { GuestProtocolError } from "./invocation.ts";
import { ToShim } from "../wire/shim-protocol.ts";
import type { Field, Frame } from "../wire/shim-protocol.ts";

/** What a link tells its owner. After `closed` nothing follows. */
export interface ShimLinkOwner {
  frame(frame: Frame): void;
  /** The stream is gone, or the guest broke the protocol; `detail` says which. */
  closed(detail: string): void;
}

/**
 * Why a link does not read on: whoever takes the answer is slow, the function writes more log than it may, or others are to
 * have their turn of the loop.
 */
export type PauseReason = "reader" | "log" | "turn";

/**
 * Frames delivered before others have their turn: a packet of 64 KiB may hold 8,192 empty ones, and a turn of a guest's
 * devices 16 such packets. An answer of 6 MB has 96.
 */
export const FRAMES_PER_TURN_MAX = 256;

/** The stream to one shim: frames out, frames in. Knows nothing of what they mean. */
export class ShimLink {
  readonly #stream: Duplex;
  readonly #clock: Pick<Clock, "soon">;
  readonly #decoder = new FrameDecoder();
  #owner: ShimLinkOwner | null = null;
  /** What came and was not read yet: because there was no owner (the hello), or the link is paused. */
  readonly #chunks: Buffer[] = [];
  /** What is left of a frame that was being delivered when its owner paused the link. */
  readonly #again: Frame[] = [];
  /** Frames that may still be delivered before others have their turn. */
  #left = FRAMES_PER_TURN_MAX;
  readonly #paused: Set<PauseReason> = new Set();
  #delivering = false;
  /** Why the stream has ended, once it has; the owner is told behind the last frame. */
  #ended: string | null = null;
  #closed = false;

  /** `clock`: whose timers work for the guest. */
  constructor(stream: Duplex, clock: Pick<Clock, "soon">) {
    this.#stream = stream;
    this.#clock = clock;
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("error", (error: Error) => this.#end(`the shim's stream failed: ${error.message}`));
    stream.on("close", () => this.#end("the shim closed its stream"));
    stream.on("end", () => this.#end("the shim ended its stream"));
  }

  /** Sets who gets the frames from now on; frames that waited are delivered at once. */
  own(owner: ShimLinkOwner): void {
    this.#owner = owner;
    if (this.#closed && this.#ended !== null) owner.closed(this.#ended);
    else this.#deliverWaiting();
  }

  /** Sends one frame of fields. */
  send(type: number, fields: readonly Field[]): void {
    this.#stream.write(encodeFrame(type, 0, encodeFields(fields)));
  }

  /** Sends an event: its fields and its payload, as one write where it is small. */
  sendInvoke(fields: readonly Field[], payload: Uint8Array): void {
    this.#stream.cork();
    this.#stream.write(encodeFrame(ToShim.Invoke, 0, encodeFields(fields)));
    for (const piece of encodeBody(ToShim.Payload, payload)) this.#stream.write(piece);
    this.#stream.uncork();
  }

  /**
   * Stops delivering frames, and reading: the guest is held back once its credit is used up. `again`, what is left of the frame
   * that is being delivered, comes first when the link goes on.
   */
  pause(why: PauseReason, again: Frame | null = null): void {
    if (again !== null) this.#again.push(again);
    this.#paused.add(why);
    this.#stream.pause();
  }

  /** Goes on, unless there is another reason to wait. */
  resume(why: PauseReason): void {
    this.#paused.delete(why);
    this.#deliverWaiting();
    if (this.#paused.size === 0) this.#stream.resume();
  }

  destroy(): void {
    this.#stream.destroy();
  }

  #receive(chunk: Buffer): void {
    if (this.#ended !== null) return;
    this.#chunks.push(chunk);
    this.#deliverWaiting();
  }

  /**
   * Delivers what waits, in order, until the owner pauses the link or others are to have their turn. What came before the end
   * is told before the end, also while the owner has paused the link.
   */
  #deliverWaiting(): void {
    // Who pauses or resumes while it is given a frame is not given the next one inside of that.
    if (this.#delivering) return;
    this.#delivering = true;
    try {
      for (;;) {
        if (this.#owner === null || this.#closed || this.#paused.has("turn")) return;
        if (this.#paused.size > 0 && this.#ended === null) return;
        if (this.#left === 0) return this.#giveTurn();
        const frame = this.#next();
        if (frame === null) break;
        this.#left -= 1;
        this.#owner.frame(frame);
      }
    } catch (error) {
      // A stream that is no frames, or a frame that its owner cannot read, is the guest's fault; nothing follows it.
      if (!(error instanceof ShimProtocolError || error instanceof GuestProtocolError)) throw error;
      this.#ended ??= error.message;
      this.#refuse(error.message);
    } finally {
      this.#delivering = false;
    }
    if (this.#ended !== null) this.#close(this.#ended);
  }

  #next(): Frame | null {
    const again = this.#again.shift();
    if (again !== undefined) return again;
    for (;;) {
      const frame = this.#decoder.next();
      if (frame !== null) return frame;
      const chunk = this.#chunks.shift();
      if (chunk === undefined) return null;
      this.#decoder.feed(chunk);
    }
  }

  /** Goes on in a later turn of the loop; until then the guest is held back once its credit is used up. */
  #giveTurn(): void {
    this.pause("turn");
    this.#clock.soon(() => {
      this.#left = FRAMES_PER_TURN_MAX;
      this.resume("turn");
    });
  }

  #refuse(detail: string): void {
    this.#close(detail);
    this.#stream.destroy();
  }

  #end(detail: string): void {
    this.#ended ??= detail;
    this.#deliverWaiting();
  }

  #close(detail: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner?.closed(detail);
  }
}
