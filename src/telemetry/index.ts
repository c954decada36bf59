export { FunctionLogs, LineSplitter, LogTail, logFilesOf, parseStoredRecord } from "./function-log.ts";
export type { FunctionLogsOptions, LogRecord, LogSink, StoredRecord } from "./function-log.ts";
export { LogReader } from "./log-reader.ts";
export { createLog, LOG_LEVELS, silentLog } from "./log.ts";
export type { HostLogFormat, Logger, LogLevel, LogOptions } from "./log.ts";
export { createMetrics } from "./metrics.ts";
export type { InvokeOutcome, Metrics, MetricsReading, MetricsRegistry, WorkerReading } from "./metrics.ts";
export { logStreamName, platformJson, platformLine, platformText, timeoutText } from "./platform-lines.ts";
export type { LogFormat, PlatformEvent, Status } from "./platform-lines.ts";
