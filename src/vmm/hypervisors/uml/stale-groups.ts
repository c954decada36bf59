import type { Clock } from "../../../lib/clock.ts";
import { killCgroup, removeCgroup } from "../../jail/cgroup.ts";
import type { CgroupLayout } from "../../jail/cgroup.ts";
import { LEFTOVERS_RETRY_MS, REAP_AGAIN_MS, STALE_GROUPS_PER_TURN_MAX } from "../../limits.ts";

/**
 * Control groups of dead monitors. Hundreds of guests that are killed at once take seconds to end, because their memory is
 * given back, and a group can be removed only then: it is done beside the loop's other work, a few groups in a turn. No new
 * group can have the name of an old one, which holds its monitor's start and number.
 */
export class StaleGroups {
  readonly #clock: Clock;
  readonly #layout: CgroupLayout;
  #left: string[] = [];
  #retryMs = REAP_AGAIN_MS;

  constructor(layout: CgroupLayout, clock: Clock) {
    this.#layout = layout;
    this.#clock = clock;
  }

  /** Kills what is in these groups, at once, and removes them, now or later. To be called once. */
  end(names: readonly string[]): void {
    for (const name of names) killCgroup(this.#layout, name);
    this.#left.push(...names.filter((name) => !removeCgroup(this.#layout, name)));
    if (this.#left.length > 0) this.#clock.after(this.#retryMs, () => this.#tryAgain());
  }

  #tryAgain(): void {
    const tried = this.#left.splice(0, STALE_GROUPS_PER_TURN_MAX);
    // Killed again: a process that was just being made when it was killed first is there now.
    for (const name of tried) killCgroup(this.#layout, name);
    const lingering = tried.filter((name) => !removeCgroup(this.#layout, name));
    this.#left.push(...lingering);
    this.#retryMs = lingering.length < tried.length ? REAP_AGAIN_MS : Math.min(2 * this.#retryMs, LEFTOVERS_RETRY_MS);
    if (this.#left.length > 0) this.#clock.after(this.#retryMs, () => this.#tryAgain());
  }
}
