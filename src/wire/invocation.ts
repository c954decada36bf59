import type { Readable } from "node:stream";
import type { TraceContext } from "./trace.ts";

/** One invocation, as the Frontend hands it to a worker. */
export interface InvocationRequest {
  readonly requestId: string;
  /** As the client named it, with its qualifier: what the function sees. */
  readonly invokedFunctionArn: string;
  /** JSON text, decoded. */
  readonly clientContext: string | null;
  readonly cognitoIdentity: string | null;
  /** X-Amzn-Trace-Id for the function, where the worker itself traces nothing. */
  readonly traceId: string | null;
  /** The span that the invocation belongs to; null without tracing. */
  readonly trace: TraceContext | null;
  readonly payload: Uint8Array;
  /** Nobody waits for the answer, so the log is all that will tell of it: it is on file before the invocation counts as done. */
  readonly asynchronous: boolean;
  /** Unix ms at which the Frontend took the request. */
  readonly receivedAtMs: number;
}

/** How a function failed, in Lambda's words: `body` is the JSON the client gets. */
export interface FunctionError {
  /** X-Amz-Function-Error. */
  readonly kind: "Unhandled" | "Handled";
  readonly errorType: string;
  readonly body: Uint8Array;
}

export interface InvocationReport {
  readonly durationMs: number;
  readonly billedDurationMs: number;
  readonly initDurationMs: number | null;
  readonly memoryMb: number;
  readonly maxMemoryUsedMb: number;
  /** Last 4 KiB of the log of this invocation, platform lines included. */
  readonly logTail: Uint8Array;
  readonly executedVersion: string;
  /** The slot that served it, for tests and traces. */
  readonly slotId: string;
  readonly coldStart: boolean;
}

/** A buffered answer: `error` set means the function failed (which is still HTTP 200). */
export interface InvocationResult {
  readonly payload: Uint8Array;
  readonly contentType: string | null;
  readonly error: FunctionError | null;
  readonly report: InvocationReport;
}

/**
 * A streamed answer. `body` carries back-pressure down to the function; `done` settles when the invocation is over
 * and tells how it went (a function may fail half-way).
 */
export interface InvocationStream {
  readonly contentType: string | null;
  readonly body: Readable;
  readonly done: Promise<{ readonly error: FunctionError | null; readonly report: InvocationReport }>;
}
