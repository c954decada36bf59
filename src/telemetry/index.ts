export { FunctionLogs, LineSplitter, LogTail, logFilesOf, parseStoredRecord } from "./function-log.ts";
export type { FunctionLogsOptions, LogRecord, LogSink, StoredRecord } from "./function-log.ts";
export type { LogRetention } from "./log-retention.ts";
export { LogReader } from "./log-reader.ts";
export { LogOutput, stderrOutput } from "./log-output.ts";
export { createLog, LOG_LEVELS, silentLog } from "./log.ts";
export type { HostLogFormat, Logger, LogLevel, LogOptions } from "./log.ts";
export { createMetrics } from "./metrics.ts";
export type {
  ConnectionEnd,
  HttpReading,
  InvokeOutcome,
  Metrics,
  MetricsReading,
  MetricsRegistry,
  Unowned,
  WorkerReading,
} from "./metrics.ts";
export { noTracer, traced } from "./tracing.ts";
export type { Attributes, Span, SpanOptions, Tracer } from "./tracing.ts";
export { logStreamName, platformJson, platformLine, platformText, timeoutText } from "./platform-lines.ts";
export type { LogFormat, PlatformEvent, Status } from "./platform-lines.ts";
