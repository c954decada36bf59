import { checked, native } from "./native.ts";

/** Called when a watched descriptor has become ready. Level is lost (edge-triggered): read until nothing is left. */
export type ReadyHandler = () => void;

let tokens: Uint32Array | null = null;
const handlers = new Map<number, ReadyHandler>();
let nextToken = 1;

const dispatch = (count: number): void => {
  for (let i = 0; i < count; i++) {
    // A handler may have ended the owner of a later event of the same batch: its token is gone then.
    handlers.get(tokens?.[i] ?? 0)?.();
  }
};

/** One watched descriptor; disposing stops the watch, and must come before the descriptor is closed. */
export class Watch implements Disposable {
  readonly #fd: number;
  readonly #token: number;
  #active = true;

  constructor(fd: number, onReady: ReadyHandler, options: { readonly writable?: boolean } = {}) {
    if (tokens === null) {
      const batch = native().startPoller(dispatch);
      if (typeof batch === "number") throw new Error(`The poller could not be started: errno ${String(-batch)}`);
      tokens = new Uint32Array(batch);
    }
    this.#fd = fd;
    this.#token = nextToken;
    nextToken = (nextToken % 0xffff_fffe) + 1;
    handlers.set(this.#token, onReady);
    try {
      checked("watch a descriptor", native().watch(fd, this.#token, options.writable === true ? 1 : 0));
    } catch (error) {
      handlers.delete(this.#token);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (!this.#active) return;
    this.#active = false;
    handlers.delete(this.#token);
    native().unwatch(this.#fd);
  }
}
