import type { Clock } from "../../lib/clock.ts";
import { slotStarting } from "../../wire/errors.ts";
import { INIT_WAIT_MS_MAX } from "../../wire/limits.ts";

/** Settles as `ready` does, or rejects with `slotStarting` after INIT_WAIT_MS_MAX: the init goes on, for whoever comes next. */
export const waitForInit = async (clock: Clock, ready: Promise<void>): Promise<void> => {
  const over = new AbortController();
  const tooLong = clock.sleep(INIT_WAIT_MS_MAX, over.signal).then(() => {
    throw slotStarting(
      `The function's init goes on and has not ended within ${INIT_WAIT_MS_MAX / 1000} s, because its host is too busy. Try again later.`,
    );
  });
  await Promise.race([ready, tooLong]).finally(() => over.abort());
};
