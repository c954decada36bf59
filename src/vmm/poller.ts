import { checked, native, NativeError } from "./native.ts";

/** Called when a watched descriptor has become ready. Level is lost (edge-triggered): read until nothing is left. */
export type ReadyHandler = () => void;

/**
 * For whom a descriptor is watched: it does the work that follows, and is where whatever that throws ends. Never throws
 * itself: the descriptors of all others are served by the same loop.
 */
export interface WatchOwner {
  run(work: ReadyHandler): void;
}

interface Watched {
  readonly owner: WatchOwner;
  readonly onReady: ReadyHandler;
}

let tokens: Uint32Array | null = null;
const watched = new Map<number, Watched>();
let nextToken = 1;

const dispatch = (count: number): void => {
  for (let i = 0; i < count; i++) {
    // A handler may have ended the owner of a later event of the same batch: its token is gone then.
    const ready = watched.get(tokens?.[i] ?? 0);
    ready?.owner.run(ready.onReady);
  }
};

/** One watched descriptor; disposing stops the watch, and must come before the descriptor is closed. */
export class Watch implements Disposable {
  readonly #fd: number;
  readonly #token: number;
  #active = true;

  constructor(fd: number, owner: WatchOwner, onReady: ReadyHandler, options: { readonly writable?: boolean } = {}) {
    if (tokens === null) {
      const batch = native().startPoller(dispatch);
      if (typeof batch === "number") throw new NativeError("Start the poller", batch);
      tokens = new Uint32Array(batch);
    }
    this.#fd = fd;
    this.#token = nextToken;
    nextToken = (nextToken % 0xffff_fffe) + 1;
    watched.set(this.#token, { owner, onReady });
    try {
      checked("watch a descriptor", native().watch(fd, this.#token, options.writable === true ? 1 : 0));
    } catch (error) {
      watched.delete(this.#token);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (!this.#active) return;
    this.#active = false;
    watched.delete(this.#token);
    native().unwatch(this.#fd);
  }
}
