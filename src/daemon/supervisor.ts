import { closeSync, openSync, constants, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Clock, Timer } from "../lib/clock.ts";
import type { Logger } from "../telemetry/index.ts";
import { checked, native } from "../vmm/native.ts";

/*
 * Telling the service manager what it cannot see: datagrams to the socket that it names in NOTIFY_SOCKET (sd_notify(3)).
 * Without one everything here does nothing.
 */

/** Told to the service manager. */
export interface Supervisor extends Disposable {
  /** Serves: units that come after may start. From now on it is told again and again that the main loop turns. */
  ready(status: string): void;
  /** Ends, and why that takes a while. */
  stopping(status: string): void;
}

const US_PER_MS = 1_000;
/** Often enough that one that is late does no harm ("about half of the time", sd_watchdog_enabled(3)). */
const WATCHDOG_PARTS = 3;

class NotifySocket implements Supervisor {
  readonly #directory: number;
  readonly #name: string;
  readonly #socket: number;
  readonly #clock: Clock;
  readonly #watchdogMs: number | null;
  #timer: Timer | null = null;

  constructor(path: string, dataDir: string, watchdogMs: number | null, clock: Clock) {
    this.#clock = clock;
    this.#watchdogMs = watchdogMs;
    this.#name = basename(path);
    this.#directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
    // Node has no datagram sockets of this kind, and the binding's are bound to a path: nobody needs it.
    const own = join(dataDir, `notify.${process.pid}`);
    rmSync(own, { force: true });
    this.#socket = checked(`Bind ${own}`, native().bindDatagram(own));
    rmSync(own, { force: true });
  }

  ready(status: string): void {
    this.#send(`READY=1\nSTATUS=${status}`);
    if (this.#watchdogMs !== null)
      this.#timer = this.#clock.every(this.#watchdogMs / WATCHDOG_PARTS, () => this.#send("WATCHDOG=1"));
  }

  stopping(status: string): void {
    this.#send(`STOPPING=1\nSTATUS=${status}`);
  }

  #send(text: string): void {
    native().sendDatagram(this.#socket, this.#directory, this.#name, Buffer.from(text));
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    native().close(this.#socket);
    closeSync(this.#directory);
  }
}

const nobody: Supervisor = { ready: () => undefined, stopping: () => undefined, [Symbol.dispose]: () => undefined };

/** The service manager that these variables name; one that hears nothing when there is none, or it cannot be reached (logged). */
export const supervisorOf = (
  env: Readonly<Record<string, string | undefined>>,
  dataDir: string,
  clock: Clock,
  log: Logger,
): Supervisor => {
  const path = env["NOTIFY_SOCKET"];
  if (path === undefined || path === "") return nobody;
  if (!path.startsWith("/")) {
    log.warn({ path }, "the service manager's socket is not a file, so it is not told that Hearth serves");
    return nobody;
  }
  const watchdogUs = env["WATCHDOG_PID"] === String(process.pid) ? Number(env["WATCHDOG_USEC"]) : 0;
  try {
    return new NotifySocket(path, dataDir, watchdogUs > 0 ? watchdogUs / US_PER_MS : null, clock);
  } catch (error) {
    log.warn({ err: error, path }, "the service manager cannot be told that Hearth serves");
    return nobody;
  }
};
