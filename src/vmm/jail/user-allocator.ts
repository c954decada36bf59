import { JAIL_USER_FIRST, JAIL_USERS_MAX } from "../limits.ts";

/**
 * Gives every jail a host user of its own, so that no jail could signal, trace or open anything of another even if it
 * got out of its namespaces. Only root can do that; anyone else's jails run as themselves.
 */
export class UserAllocator {
  readonly #free = new Set<number>();
  #next: number;
  readonly #enabled: boolean;

  constructor(enabled: boolean, start: number = process.pid) {
    this.#enabled = enabled;
    // Several monitors on one host begin at different places and so seldom give the same user.
    this.#next = (start * 64) % JAIL_USERS_MAX;
  }

  /** A user ID, or null for "stay who we are". */
  take(): number | null {
    if (!this.#enabled) return null;
    const [reused] = this.#free;
    if (reused !== undefined) {
      this.#free.delete(reused);
      return reused;
    }
    const user = JAIL_USER_FIRST + this.#next;
    this.#next = (this.#next + 1) % JAIL_USERS_MAX;
    return user;
  }

  release(user: number | null): void {
    if (user !== null) this.#free.add(user);
  }
}
