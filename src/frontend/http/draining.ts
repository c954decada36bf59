import type { ServerResponse } from "node:http";
import { ServiceError } from "../../wire/errors.ts";
import { DRAIN_RETRY_AFTER_S } from "./limits.ts";

/**
 * Requests at work, and whether there may be more. Before Hearth ends it takes no new ones but goes on listening, so that
 * a client is told to come again instead of meeting a closed port.
 */
export class Draining {
  readonly #idle = Promise.withResolvers<undefined>();
  #requests = 0;
  #begun = false;

  get hasBegun(): boolean {
    return this.#begun;
  }

  /** Counts a request until its answer is out. Throws 503 when no new ones are taken. */
  enter(response: ServerResponse): void {
    this.check();
    this.#requests += 1;
    response.once("close", () => {
      this.#requests -= 1;
      this.#tell();
    });
  }

  /** Throws 503 when no new requests are taken. */
  check(): void {
    if (!this.#begun) return;
    throw new ServiceError(
      "ServiceUnavailableException",
      503,
      "Hearth is being stopped and takes no new requests. Try again when it is back.",
      { Type: "Service", retryAfterSeconds: DRAIN_RETRY_AFTER_S },
    );
  }

  /** Takes no new requests from now on. Resolves when none is at work any more. */
  begin(): Promise<unknown> {
    this.#begun = true;
    this.#tell();
    return this.#idle.promise;
  }

  #tell(): void {
    if (this.#begun && this.#requests === 0) this.#idle.resolve(undefined);
  }
}
