import type { Clock } from "../lib/clock.ts";
import { ownedClock } from "../lib/owned-clock.ts";
import type { TurnOwner, Turns } from "../lib/turn-meter.ts";
import type { DeviceHost } from "./devices/virtio-device.ts";
import { GuestShare } from "./guest-share.ts";

export interface GuestTurnsOptions {
  /** Of the microVM. */
  readonly id: string;
  readonly clock: Clock;
  readonly turns: Turns;
  /** What went wrong in the work for this guest, which is the end of its microVM. Called once. */
  readonly onFailure: (error: unknown) => void;
}

/** A guest's devices took the loop for too long, too often. */
export class GuestShareError extends Error {
  override readonly name = "GuestShareError";
}

/**
 * All work of the main loop for one guest goes through here: what its kernel asks of a device, and the timers of that
 * device. So whatever that throws ends this microVM and nothing else, and its length is known. Devices bound what they do
 * in a turn by what they know of it (packets, descriptors, bytes); a guest that finds what costs much all the same loses
 * its microVM when it comes back with that.
 */
export class GuestTurns implements DeviceHost {
  /** For the guest's devices. */
  readonly clock: Clock;
  readonly #owner: TurnOwner;
  readonly #options: GuestTurnsOptions;
  readonly #share: GuestShare;
  #failed = false;

  constructor(options: GuestTurnsOptions) {
    this.#options = options;
    this.#owner = { kind: "guest", name: options.id };
    this.#share = new GuestShare(() => options.turns.use());
    this.clock = ownedClock(options.clock, (callback) => {
      let result: unknown;
      this.run(() => (result = callback()));
      if (result instanceof Promise) this.own(result);
    });
  }

  /** Does work for the guest. Never throws. */
  run(work: () => void): void {
    const us = this.#options.turns.run(this.#owner, () => {
      try {
        work();
      } catch (error) {
        this.#fail(error);
      }
    });
    const tooMuch = this.#share.took(us, this.#options.clock.monotonicMs());
    if (tooMuch !== null) {
      this.#fail(new GuestShareError(`its devices took more of the host's main loop than their share: ${tooMuch}`));
    }
  }

  /** The promise's failure is the microVM's end. */
  own(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => this.#fail(error));
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.onFailure(error);
  }
}
