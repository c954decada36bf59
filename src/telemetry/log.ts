import { pino } from "pino";
import type { Logger } from "pino";
import type { LogOutput } from "./log-output.ts";
import { pinoPretty } from "./pretty.ts";

export type { Logger } from "pino";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
/** `json`: one object a line, for machines. `text`: one readable line each. */
export type HostLogFormat = "json" | "text";

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: HostLogFormat;
  /** Where to: stderr as a rule, so that stdout stays the program's answer. */
  readonly output: LogOutput;
  readonly colours?: boolean;
}

/** Hearth's own log (not the functions' logs, see function-log.ts). A line is written at once unless its reader is slow. */
export const createLog = ({ level, format, output, colours }: LogOptions): Logger => {
  const sink = format === "json" ? output : pinoPretty(output, colours ?? false);
  const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, sink);
  output.tellDropped((lines) =>
    log.warn({ lines }, "lines of this log were dropped: they were not read or stored in time"),
  );
  return log;
};

/** A log that says nothing, for tests and for commands that answer on their own. */
export const silentLog = (): Logger => pino({ level: "silent" });
