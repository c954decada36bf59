/**
 * The lines that the platform itself writes into a function's log, word for word as Lambda writes them
 * ("Lambda log lines" in AWS's developer guide; the JSON forms are the Telemetry API's schema 2022-12-13).
 * Pure: plain objects in, text out, without the closing newline.
 */

export type LogFormat = "Text" | "JSON";
export type Status = "success" | "error" | "timeout" | "failure";

/** A moment of a slot's or an invocation's life that is logged. Durations are in ms, sizes in MB. */
export type PlatformEvent =
  | {
      readonly type: "initStart";
      /** e.g. "nodejs:24.v1" */
      readonly runtimeVersion: string;
      readonly runtimeVersionArn: string;
      readonly functionName: string;
      readonly functionVersion: string;
    }
  | {
      readonly type: "initReport";
      readonly durationMs: number;
      readonly phase: "init" | "invoke";
      readonly status: Status;
      readonly errorType: string | null;
    }
  | { readonly type: "start"; readonly requestId: string; readonly version: string }
  | {
      readonly type: "end";
      readonly requestId: string;
      readonly status: Status;
      readonly durationMs: number;
      readonly producedBytes: number;
      readonly errorType: string | null;
    }
  | {
      readonly type: "report";
      readonly requestId: string;
      readonly durationMs: number;
      readonly billedDurationMs: number;
      readonly memoryMb: number;
      readonly maxMemoryUsedMb: number;
      /** null when the slot was warm. */
      readonly initDurationMs: number | null;
      readonly status: Status;
      readonly errorType: string | null;
      /** X-Ray's `Root=…;Parent=…;Sampled=…`, when tracing is active. */
      readonly traceId: string | null;
    }
  /** The invocation ran into its timeout. */
  | { readonly type: "timeout"; readonly requestId: string; readonly timeoutMs: number }
  /** The runtime process ended: "Runtime exited with error: exit status 1", and so on. */
  | { readonly type: "fault"; readonly requestId: string; readonly message: string; readonly errorType: string }
  | { readonly type: "logsDropped"; readonly reason: string; readonly records: number; readonly bytes: number };

const ms = (value: number): string => `${value.toFixed(2)} ms`;

const statusParts = (status: Status, errorType: string | null): readonly string[] => {
  if (status === "success") return [];
  // Lambda names the error's type for errors only: a timeout says all there is to say.
  const named = status === "timeout" || errorType === null ? [] : [`Error Type: ${errorType}`];
  return [`Status: ${status === "failure" ? "error" : status}`, ...named];
};

const reportText = (event: Extract<PlatformEvent, { type: "report" }>): string => {
  const parts = [
    `REPORT RequestId: ${event.requestId}`,
    `Duration: ${ms(event.durationMs)}`,
    `Billed Duration: ${Math.ceil(event.billedDurationMs)} ms`,
    `Memory Size: ${event.memoryMb} MB`,
    `Max Memory Used: ${event.maxMemoryUsedMb} MB`,
    ...(event.initDurationMs === null ? [] : [`Init Duration: ${ms(event.initDurationMs)}`]),
    ...statusParts(event.status, event.errorType),
  ];
  const trace = event.traceId === null ? "" : `\nXRAY TraceId: ${rootOf(event.traceId)}\t`;
  return `${parts.join("\t")}\t${trace}`;
};

const rootOf = (traceId: string): string => /Root=([^;]+)/.exec(traceId)?.[1] ?? traceId;

/** The text form: what a log with `LogFormat: Text` gets. One string may hold two lines (as Lambda's own do). */
export const platformText = (timeMs: number, event: PlatformEvent): string => {
  switch (event.type) {
    case "initStart":
      return `INIT_START Runtime Version: ${event.runtimeVersion}\tRuntime Version ARN: ${event.runtimeVersionArn}`;
    case "initReport":
      return [
        `INIT_REPORT Init Duration: ${ms(event.durationMs)}`,
        `Phase: ${event.phase}`,
        ...statusParts(event.status, event.errorType),
      ].join("\t");
    case "start":
      return `START RequestId: ${event.requestId} Version: ${event.version}`;
    case "end":
      return `END RequestId: ${event.requestId}`;
    case "report":
      return reportText(event);
    case "timeout":
      return `${new Date(timeMs).toISOString()} ${event.requestId} ${timeoutText(event.timeoutMs)}\n`;
    case "fault":
      return `RequestId: ${event.requestId} Error: ${event.message}\n${event.errorType}`;
    case "logsDropped":
      return `LOGS_DROPPED Records: ${event.records}\tBytes: ${event.bytes}\tReason: ${event.reason}`;
  }
};

/** "Task timed out after 3.00 seconds": shared by the log line and the payload that the client gets. */
export const timeoutText = (timeoutMs: number): string =>
  `Task timed out after ${(timeoutMs / 1000).toFixed(2)} seconds`;

const jsonRecord = (event: PlatformEvent): Readonly<Record<string, unknown>> => {
  switch (event.type) {
    case "initStart":
      return {
        initializationType: "on-demand",
        phase: "init",
        runtimeVersion: event.runtimeVersion,
        runtimeVersionArn: event.runtimeVersionArn,
        functionName: event.functionName,
        functionVersion: event.functionVersion,
      };
    case "initReport":
      return {
        initializationType: "on-demand",
        phase: event.phase,
        status: event.status,
        ...(event.errorType === null ? {} : { errorType: event.errorType }),
        metrics: { durationMs: event.durationMs },
      };
    case "start":
      return { requestId: event.requestId, version: event.version };
    case "end":
      return {
        requestId: event.requestId,
        status: event.status,
        ...(event.errorType === null ? {} : { errorType: event.errorType }),
        metrics: { durationMs: event.durationMs, producedBytes: event.producedBytes },
      };
    case "report":
      return {
        requestId: event.requestId,
        metrics: {
          durationMs: event.durationMs,
          billedDurationMs: Math.ceil(event.billedDurationMs),
          memorySizeMB: event.memoryMb,
          maxMemoryUsedMB: event.maxMemoryUsedMb,
          ...(event.initDurationMs === null ? {} : { initDurationMs: event.initDurationMs }),
        },
        ...(event.traceId === null ? {} : { tracing: { type: "X-Amzn-Trace-Id", value: event.traceId } }),
        status: event.status,
        ...(event.errorType === null ? {} : { errorType: event.errorType }),
      };
    case "timeout":
      return { requestId: event.requestId, message: timeoutText(event.timeoutMs) };
    case "fault":
      return { requestId: event.requestId, message: event.message, errorType: event.errorType };
    case "logsDropped":
      return { droppedBytes: event.bytes, droppedRecords: event.records, reason: event.reason };
  }
};

/** Lambda's names of the JSON types where they differ from ours. */
const JSON_TYPES: Readonly<Partial<Record<PlatformEvent["type"], string>>> = {
  end: "platform.runtimeDone",
  timeout: "platform.fault",
};

/** The JSON form: one line, `{"time":…,"type":"platform.…","record":{…}}`. */
export const platformJson = (timeMs: number, event: PlatformEvent): string =>
  JSON.stringify({
    time: new Date(timeMs).toISOString(),
    type: JSON_TYPES[event.type] ?? `platform.${event.type}`,
    record: jsonRecord(event),
  });

/** The line for a log of the given format, without its closing newline. `timeMs` is Unix time. */
export const platformLine = (format: LogFormat, timeMs: number, event: PlatformEvent): string =>
  format === "JSON" ? platformJson(timeMs, event) : platformText(timeMs, event);

/** Lambda's names for log streams: `2026/01/31/[$LATEST]<32 hex>`. `id` is anything with 32 hexadecimal digits in it. */
export const logStreamName = (timeMs: number, version: string, id: string): string => {
  const date = new Date(timeMs).toISOString().slice(0, 10).replaceAll("-", "/");
  return `${date}/[${version}]${id
    .replaceAll(/[^0-9a-f]/g, "")
    .slice(0, 32)
    .padEnd(32, "0")}`;
};
