import type { Clock, Timer } from "../../lib/clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import { serviceFailure } from "../../wire/errors.ts";
import type { ServiceError } from "../../wire/errors.ts";
import { unavailable } from "../../wire/exhaustion.ts";
import { INIT_GRACE_MS, INIT_TIMEOUT_MS } from "../../wire/limits.ts";
import { STARVED_MS_MAX } from "./limits.ts";
import { afterUsable } from "./usable-time.ts";

export interface InitLimitParts {
  readonly clock: Clock;
  readonly read: () => CpuTimes | null;
  /** Init has had its time: the guest is to end it. */
  readonly end: () => void;
  /** The slot cannot be started: why, in a few words, and the error for who waits for it. */
  readonly giveUp: (what: string, failure: ServiceError) => void;
}

/**
 * Limits an init, in time that its guest could use: after INIT_TIMEOUT_MS the guest is told to end it, and when it does not
 * do so within INIT_GRACE_MS it is given up. So is one that its host had no CPU for all the time. Dispose it when init is over.
 */
export const limitInit = ({ clock, read, end, giveUp }: InitLimitParts): Timer => {
  const limit = (usableMsMax: number, onUsedUp: () => void): Timer =>
    afterUsable(clock, { read, usableMsMax, onOver: (why) => (why === "starved" ? starved() : onUsedUp()) });
  const starved = (): void => {
    const what = `its init had hardly any CPU time of its host in ${STARVED_MS_MAX / 1000} s`;
    const text = `The function could not be started: ${what}. Try again when the host is less busy.`;
    giveUp(what, unavailable(text));
  };
  const overrun = (): void => {
    const what = `the guest did not end its init within ${INIT_TIMEOUT_MS + INIT_GRACE_MS} ms`;
    giveUp(what, serviceFailure(`The function could not be started: ${what}.`));
  };
  let timer = limit(INIT_TIMEOUT_MS, () => {
    end();
    timer = limit(INIT_GRACE_MS, overrun);
  });
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
};
