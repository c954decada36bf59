import type { Duplex } from "node:stream";
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

/** Why a link does not read on: whoever takes the answer is slow, or the function writes more log than it may. */
export type PauseReason = "reader" | "log";

/** The stream to one shim: frames out, frames in. Knows nothing of what they mean. */
export class ShimLink {
  readonly #stream: Duplex;
  readonly #decoder = new FrameDecoder();
  #owner: ShimLinkOwner | null = null;
  /** What came and was not delivered yet: because there was no owner (the hello), or the link is paused. */
  #waiting: Frame[] = [];
  readonly #paused: Set<PauseReason> = new Set();
  #delivering = false;
  #closed: string | null = null;
  #refused = false;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("error", (error: Error) => this.#close(`the shim's stream failed: ${error.message}`));
    stream.on("close", () => this.#close("the shim closed its stream"));
    stream.on("end", () => this.#close("the shim ended its stream"));
  }

  /** Sets who gets the frames from now on; frames that waited are delivered at once. */
  own(owner: ShimLinkOwner): void {
    this.#owner = owner;
    this.#deliverWaiting();
    if (this.#closed !== null && !this.#refused) owner.closed(this.#closed);
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
    if (again !== null) this.#waiting.unshift(again);
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
    if (this.#closed !== null) return;
    let frames: readonly Frame[];
    try {
      frames = this.#decoder.push(chunk);
    } catch (error) {
      this.#close(error instanceof Error ? error.message : String(error));
      this.#stream.destroy();
      return;
    }
    for (const frame of frames) this.#waiting.push(frame);
    this.#deliverWaiting();
  }

  /** Delivers what waits, in order, until the owner pauses the link; `all`: also while it does. */
  #deliverWaiting(all = false): void {
    // Who pauses or resumes while it is given a frame is not given the next one inside of that.
    if (this.#delivering) return;
    this.#delivering = true;
    try {
      for (;;) {
        if (this.#owner === null || this.#refused || (this.#paused.size > 0 && !all)) return;
        const frame = this.#waiting.shift();
        if (frame === undefined) return;
        this.#deliver(this.#owner, frame);
      }
    } finally {
      this.#delivering = false;
    }
  }

  /** A frame that its owner cannot read is the guest's fault, and the end of the link; nothing follows it. */
  #deliver(owner: ShimLinkOwner, frame: Frame): void {
    try {
      owner.frame(frame);
    } catch (error) {
      if (!(error instanceof ShimProtocolError || error instanceof GuestProtocolError)) throw error;
      this.#refused = true;
      this.#close(error.message);
      this.#stream.destroy();
    }
  }

  #close(detail: string): void {
    if (this.#closed !== null) return;
    // What came before the end is told before the end.
    this.#deliverWaiting(true);
    if (this.#closed !== null) return;
    this.#closed = detail;
    this.#owner?.closed(detail);
  }
}
