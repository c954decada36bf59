import { Readable } from "node:stream";
import type { InvocationRequest } from "../wire/invocation.ts";
import { OVERDUE_BYTES_MAX, PAYLOAD_BYTES_MAX } from "../wire/limits.ts";
import { decodeFields } from "../wire/shim-codec.ts";
import type { FieldReader } from "../wire/shim-codec.ts";
import { DoneField, FailureOutcome, FromShim, InvokeField, ResponseField } from "../wire/shim-protocol.ts";
import type { Field, Frame } from "../wire/shim-protocol.ts";
import { readFailure } from "./failure.ts";
import type { Failure } from "./failure.ts";

/** What `Done` said. */
export interface Done {
  readonly durationMs: number;
  readonly memoryBytesPeak: number;
  /** Of an init that ran inside the invocation. */
  readonly initDurationMs: number | null;
  readonly initFailed: boolean;
  readonly runtimeAlive: boolean;
}

/** Where the function's answer goes, piece by piece. */
export interface ResponseSink {
  head(contentType: string | null, streaming: boolean): void;
  /** False when no more should come for now; `resume` given to the sink's maker lets it go on. */
  data(bytes: Uint8Array): boolean;
  end(): void;
}

/** The guest sent what it may not send now: its microVM is to be ended. */
export class GuestProtocolError extends Error {
  override readonly name = "GuestProtocolError";
}

export const invokeFields = (
  request: InvocationRequest,
  deadlineMs: number,
  responseBytesMax: number,
  nowMs: number,
): Field[] => {
  const fields: Field[] = [
    [InvokeField.RequestId, request.requestId],
    [InvokeField.DeadlineMs, deadlineMs],
    [InvokeField.FunctionArn, request.invokedFunctionArn],
    [InvokeField.ContentType, "application/json"],
    [InvokeField.PayloadBytes, request.payload.length],
    [InvokeField.ResponseBytesMax, responseBytesMax],
    [InvokeField.UnixTimeUs, nowMs * 1000],
  ];
  if (request.traceId !== null) fields.push([InvokeField.TraceId, request.traceId]);
  if (request.clientContext !== null) fields.push([InvokeField.ClientContext, request.clientContext]);
  if (request.cognitoIdentity !== null) fields.push([InvokeField.CognitoIdentity, request.cognitoIdentity]);
  return fields;
};

/**
 * The frames of one invocation, from the first to `Done`. Checks their order: head, data, end, done, each at most
 * once, and data never beyond `responseBytesMax`.
 */
export class InvocationFrames {
  readonly #sink: ResponseSink;
  readonly responseBytesMax: number;
  readonly #done = Promise.withResolvers<Done>();
  #stage: "waiting" | "answering" | "answered" | "done" = "waiting";
  #bytes = 0;
  /** Bytes taken since `readOn`, or null. */
  #overdueBytes: number | null = null;
  failure: Failure | null = null;
  /** What has come of an error's body; null when what comes is an answer. */
  #error: Uint8Array[] | null = null;

  constructor(sink: ResponseSink, responseBytesMax: number) {
    this.#sink = sink;
    this.responseBytesMax = responseBytesMax;
    // Aborted while nobody waits yet, it must not count as an unhandled rejection.
    this.#done.promise.catch(() => {});
  }

  /** Settles with what `Done` said; rejects when the microVM is gone. */
  get done(): Promise<Done> {
    return this.#done.promise;
  }

  get responseBytes(): number {
    return this.#bytes;
  }

  abort(error: Error): void {
    this.#done.reject(error);
  }

  /** The guest let its deadline pass without a word: for the client this is a timeout like any other. */
  overrun(timeoutMs: number): void {
    if (this.#stage === "done") return;
    if (this.#stage !== "answered") this.failure = TIMED_OUT;
    this.#stage = "done";
    this.#sink.end();
    this.#done.resolve({
      durationMs: timeoutMs,
      memoryBytesPeak: 0,
      initDurationMs: null,
      initFailed: false,
      runtimeAlive: false,
    });
  }

  /** From now on a slow reader holds nothing back: what the guest still has of the answer is no longer growing. */
  readOn(): void {
    this.#overdueBytes ??= 0;
  }

  /** Takes one frame; false when the link should be held back. Throws `GuestProtocolError`. */
  take(frame: Frame): boolean {
    switch (frame.type) {
      case FromShim.ResponseHead: {
        this.#expect("waiting", frame);
        this.#stage = "answering";
        const fields = decodeFields(frame.payload);
        if (fields.number(ResponseField.Error) === 1) this.#error = [];
        else this.#sink.head(fields.text(ResponseField.ContentType), fields.number(ResponseField.Streaming) === 1);
        return true;
      }
      case FromShim.ResponseData:
        this.#expect("answering", frame);
        this.#bytes += frame.payload.length;
        if (this.#bytes > (this.#error === null ? this.responseBytesMax : PAYLOAD_BYTES_MAX))
          throw new GuestProtocolError("the shim sent more than it was told to");
        if (this.#error !== null) return this.#error.push(frame.payload) > 0;
        return this.#sink.data(frame.payload) || this.#takeOverdue(frame.payload.length);
      case FromShim.ResponseEnd:
        if (this.#stage !== "waiting") this.#expect("answering", frame);
        this.#stage = "answered";
        this.failure = this.#withBody(readFailure(decodeFields(frame.payload)));
        this.#sink.end();
        return true;
      case FromShim.Done:
        this.#expect("answered", frame);
        this.#stage = "done";
        this.#done.resolve(readDone(decodeFields(frame.payload)));
        return true;
      default:
        throw new GuestProtocolError(`frame 0x${frame.type.toString(16)} does not belong to an invocation`);
    }
  }

  /** A reported failure with its body, which came as an answer does. */
  #withBody(failure: Failure | null): Failure | null {
    if (this.#error === null) return failure;
    if (failure === null) throw new GuestProtocolError("the shim announced an error and told of none");
    return failure.outcome === FailureOutcome.Reported
      ? { ...failure, errorBody: Buffer.concat(this.#error) }
      : failure;
  }

  #takeOverdue(bytes: number): boolean {
    if (this.#overdueBytes === null) return false;
    this.#overdueBytes += bytes;
    if (this.#overdueBytes > OVERDUE_BYTES_MAX)
      throw new GuestProtocolError("the guest goes on answering after its deadline");
    return true;
  }

  #expect(stage: string, frame: Frame): void {
    if (this.#stage === stage) return;
    throw new GuestProtocolError(`frame 0x${frame.type.toString(16)} came while the invocation was ${this.#stage}`);
  }
}

const TIMED_OUT: Failure = {
  outcome: FailureOutcome.TimedOut,
  errorType: null,
  errorBody: null,
  exitCode: null,
  signal: null,
  durationUs: null,
};

const readDone = (fields: FieldReader): Done => {
  const initUs = fields.number(DoneField.InitDurationUs);
  return {
    durationMs: (fields.number(DoneField.DurationUs) ?? 0) / 1000,
    memoryBytesPeak: fields.number(DoneField.MemoryBytesPeak) ?? 0,
    initDurationMs: initUs === null ? null : initUs / 1000,
    initFailed: fields.number(DoneField.InitFailed) === 1,
    runtimeAlive: fields.number(DoneField.RuntimeAlive) === 1,
  };
};

/** Collects a whole answer. */
export class BufferedSink implements ResponseSink {
  readonly #chunks: Uint8Array[] = [];
  contentType: string | null = null;

  head(contentType: string | null): void {
    this.contentType = contentType;
  }

  data(bytes: Uint8Array): boolean {
    this.#chunks.push(bytes);
    return true;
  }

  end(): void {}

  payload(): Uint8Array {
    const [only] = this.#chunks;
    if (this.#chunks.length === 1 && only !== undefined) return only;
    return Buffer.concat(this.#chunks);
  }
}

/** Hands an answer on as it comes; a slow reader holds the guest back through `resume`. */
export class StreamingSink implements ResponseSink {
  readonly body: Readable;
  readonly #started = Promise.withResolvers<string | null>();

  constructor(resume: () => void) {
    this.body = new Readable({
      read: resume,
      // Nobody reads any more: nothing may be left waiting for that.
      destroy: (error, done) => {
        resume();
        done(error);
      },
    });
    this.body.on("error", () => {});
  }

  /** Content type, as soon as the function begins to answer (or fails without an answer). */
  get started(): Promise<string | null> {
    return this.#started.promise;
  }

  head(contentType: string | null): void {
    this.#started.resolve(contentType);
  }

  data(bytes: Uint8Array): boolean {
    // A reader that went away does not stop the function, as on Lambda: the rest is thrown away.
    return this.body.destroyed || this.body.push(bytes);
  }

  end(): void {
    this.#started.resolve(null);
    if (!this.body.destroyed) this.body.push(null);
  }

  abort(error: Error): void {
    this.#started.reject(error);
    this.body.destroy(error);
  }
}
