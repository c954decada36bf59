import { getSystemErrorName } from "node:util";

import { checked, native, RECEIVE_DESCRIPTORS_LENGTH } from "../native.ts";
import { Watch, type WatchOwner } from "../poller.ts";
import { decodeViolation, NOTIFICATION_BYTES, type Violation } from "./seccomp.ts";

/**
 * The monitor's side of native/jail/enter.c: gives the jail its filter, gets the jail's own directory, and hears of every
 * call the filter reports. A reported call waits until its process is killed, or the jail is disposed; it is never made.
 */
export class JailEntry implements Disposable {
  /** The jail's end, to be its descriptor 3. Closed on our side by `started`. */
  readonly descriptor: number;
  /**
   * Settles when the jail's program is about to run, filtered: to a descriptor of the jail's own directory, to be used
   * until this is disposed. Nothing in there is trusted. Null when the jail could not be entered.
   */
  readonly entered: Promise<number | null>;
  readonly #settle: (directory: number | null) => void;
  readonly #owner: WatchOwner;
  readonly #onViolation: (violation: Violation) => void;
  readonly #stack: DisposableStack;
  readonly #entering: DisposableStack;
  readonly #childEnd: DisposableStack;

  /** `owner` does what follows when the jail says something. Throws a `NativeError`, with nothing left. */
  constructor(filter: Uint8Array, owner: WatchOwner, onViolation: (violation: Violation) => void) {
    this.#owner = owner;
    this.#onViolation = onViolation;
    const { promise, resolve } = Promise.withResolvers<number | null>();
    this.entered = promise;
    this.#settle = resolve;
    const ends = new Int32Array(2);
    checked("Make a pair of sockets", native().socketPair(ends));
    const [ours = -1, theirs = -1] = ends;
    this.descriptor = theirs;
    using setup = new DisposableStack();
    this.#childEnd = setup.use(new DisposableStack());
    this.#childEnd.defer(() => native().close(theirs));
    this.#entering = setup.use(new DisposableStack());
    this.#entering.defer(() => native().close(ours));
    checked("Send a filter to a jail", native().write(ours, filter));
    this.#entering.use(new Watch(ours, owner, () => this.#enter(ours)));
    this.#stack = setup.move();
  }

  /** The child has its end. */
  started(): void {
    this.#childEnd.dispose();
  }

  [Symbol.dispose](): void {
    this.#settle(null);
    this.#stack.dispose();
  }

  /** The jail's one message, or the end of its socket when it failed. */
  #enter(socket: number): void {
    const received = new Int32Array(RECEIVE_DESCRIPTORS_LENGTH);
    native().receive(socket, new Uint8Array(1), received);
    this.#entering.dispose();
    const descriptors = received.subarray(1, 1 + Math.max(received[0] ?? 0, 0));
    for (const descriptor of descriptors) this.#stack.defer(() => native().close(descriptor));
    const [listener, directory] = descriptors;
    if (listener === undefined || directory === undefined) return this.#settle(null);
    this.#stack.use(new Watch(listener, this.#owner, () => this.#report(listener)));
    this.#settle(directory);
  }

  #report(listener: number): void {
    const bytes = new Uint8Array(NOTIFICATION_BYTES);
    const received = native().receiveViolation(listener, bytes);
    if (received > 0) this.#onViolation(decodeViolation(bytes));
    // Some call was reported and waits: it is not let go on for that.
    else if (received < 0) this.#onViolation({ pid: 0, call: `unknown (${getSystemErrorName(received)})`, args: [] });
  }
}
