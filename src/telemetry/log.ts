import { pino } from "pino";
import type { Logger } from "pino";
import { pinoPretty } from "./pretty.ts";

export type { Logger } from "pino";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
/** `json`: one object a line, for machines. `text`: one readable line each. */
export type HostLogFormat = "json" | "text";

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: HostLogFormat;
  /** Where to: a terminal's stderr by default, so that stdout stays the program's answer. */
  readonly destination?: NodeJS.WritableStream;
  readonly colours?: boolean;
}

/** Hearth's own log (not the functions' logs, see function-log.ts). Writing is synchronous: nothing is lost at exit. */
export const createLog = (options: LogOptions): Logger => {
  const destination = options.destination ?? process.stderr;
  const stream = options.format === "json" ? destination : pinoPretty(destination, options.colours ?? false);
  return pino({ level: options.level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream);
};

/** A log that says nothing, for tests and for commands that answer on their own. */
export const silentLog = (): Logger => pino({ level: "silent" });
