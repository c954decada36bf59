import { randomUUID } from "node:crypto";
import type { Duplex } from "node:stream";
import { decodeFields, encodeBody, encodeFields, encodeFrame, FrameDecoder } from "../../src/wire/shim-codec.ts";
import type { FieldReader } from "../../src/wire/shim-codec.ts";
import {
  ConfigureField,
  DoneField,
  FailureField,
  FromShim,
  InvokeField,
  LOG_STDERR,
  ResponseField,
  ToShim,
} from "../../src/wire/shim-protocol.ts";
import type { Field, Frame } from "../../src/wire/shim-protocol.ts";

/** The fields of a failure as the tests compare them; what is absent is null. */
export interface Failure {
  readonly outcome: number | null;
  readonly errorType: string | null;
  readonly errorBody: string | null;
  readonly exitCode: number | null;
  readonly signal: number | null;
  readonly durationUs: number | null;
}

/** All that one invocation gave. */
export interface Invoked {
  readonly requestId: string;
  readonly contentType: string | null;
  readonly streaming: boolean;
  readonly body: Buffer;
  /** Null when the answer was good. */
  readonly failure: Failure | null;
  readonly done: FieldReader;
  readonly alive: boolean;
  readonly stdout: string;
  readonly stderr: string;
  /** Types of the frames in the order they came, repeated ones once. */
  readonly order: readonly number[];
}

export interface InvokeOptions {
  /** The payload follows so much later. */
  readonly payloadDelayMs?: number;
  readonly timeoutMs?: number;
  readonly fields?: readonly Field[];
  /** Called for each piece of the answer. */
  readonly onData?: (bytes: Uint8Array) => void;
}

export const readFailure = (reader: FieldReader): Failure | null => {
  const outcome = reader.number(FailureField.Outcome);
  if (outcome === null) return null;
  return {
    outcome,
    errorType: reader.text(FailureField.ErrorType),
    errorBody: reader.text(FailureField.ErrorBody),
    exitCode: reader.number(FailureField.ExitCode),
    signal: reader.number(FailureField.Signal),
    durationUs: reader.number(FailureField.DurationUs),
  };
};

/** The host's side of a shim's stream, one frame after the other. */
export class ShimDriver {
  readonly #stream: Duplex;
  readonly #decoder = new FrameDecoder();
  readonly #frames: Frame[] = [];
  #wake: (() => void) | null = null;
  #ended = false;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on("data", (chunk: Buffer) => {
      this.#frames.push(...this.#decoder.push(Uint8Array.from(chunk)));
      this.#wake?.();
    });
    for (const event of ["end", "close", "error"]) {
      stream.on(event, () => {
        this.#ended = true;
        this.#wake?.();
      });
    }
  }

  /** The next frame. Throws with the text of a Fault, or when the stream ends. */
  async frame(): Promise<Frame> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) {
        if (frame.type === FromShim.Fault) throw new Error(`fault: ${Buffer.from(frame.payload).toString()}`);
        return frame;
      }
      if (this.#ended) throw new Error("the shim's stream has ended");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Skips log frames (handing their text over) up to a frame of one of the types. */
  async until(types: readonly number[], log: (text: string, isStderr: boolean) => void = () => {}): Promise<Frame> {
    for (;;) {
      const frame = await this.frame();
      if (types.includes(frame.type)) return frame;
      if (frame.type !== FromShim.Log) throw new Error(`frame 0x${frame.type.toString(16)} came unexpectedly`);
      log(Buffer.from(frame.payload.subarray(8)).toString(), frame.flags === LOG_STDERR);
    }
  }

  write(bytes: Uint8Array): void {
    this.#stream.write(bytes);
  }

  send(type: number, fields: readonly Field[] = []): void {
    this.write(encodeFrame(type, 0, encodeFields(fields)));
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Waits until the shim has gone. */
  async gone(): Promise<void> {
    while (!this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  destroy(): void {
    this.#stream.destroy();
  }

  /** Configures and waits for the end of the init: its frame, Ready or InitFailed, and what was logged. */
  async configure(fields: readonly Field[]): Promise<{ frame: Frame; reader: FieldReader; log: string }> {
    this.send(ToShim.Configure, [...fields, [ConfigureField.UnixTimeUs, Date.now() * 1000]]);
    let log = "";
    const frame = await this.until([FromShim.Ready, FromShim.InitFailed], (text) => {
      log += text;
    });
    return { frame, reader: decodeFields(frame.payload), log };
  }

  /** Prepares a runtime and waits until it waits. */
  async prepare(fields: readonly Field[]): Promise<void> {
    this.send(ToShim.Prepare, fields);
    await this.until([FromShim.Prepared]);
  }

  /** Sends an Invoke and its payload. */
  begin(event: string | Uint8Array, options: InvokeOptions = {}): string {
    const requestId = randomUUID();
    const payload = typeof event === "string" ? Buffer.from(event) : event;
    const fields: Field[] = [
      [InvokeField.RequestId, requestId],
      [InvokeField.DeadlineMs, Date.now() + (options.timeoutMs ?? 10_000)],
      [InvokeField.FunctionArn, "arn:aws:lambda:local:000000000000:function:f"],
      [InvokeField.ContentType, "application/json"],
      [InvokeField.PayloadBytes, payload.length],
      [InvokeField.ResponseBytesMax, 6_291_556],
      [InvokeField.UnixTimeUs, Date.now() * 1000],
      ...(options.fields ?? []),
    ];
    const frame = encodeFrame(ToShim.Invoke, 0, encodeFields(fields));
    const body = encodeBody(ToShim.Payload, payload);
    if (options.payloadDelayMs === undefined) {
      this.write(Buffer.concat([frame, ...body]));
    } else {
      this.write(frame);
      setTimeout(() => this.write(Buffer.concat([...body])), options.payloadDelayMs);
    }
    return requestId;
  }

  /** One invocation, from Invoke to Done. */
  async invoke(event: string | Uint8Array, options: InvokeOptions = {}): Promise<Invoked> {
    const requestId = this.begin(event, options);
    const pieces: Uint8Array[] = [];
    const order: number[] = [];
    let head: FieldReader | null = null;
    let failure: Failure | null = null;
    let stdout = "";
    let stderr = "";
    for (;;) {
      const frame = await this.frame();
      if (order.at(-1) !== frame.type) order.push(frame.type);
      if (frame.type === FromShim.Log) {
        const text = Buffer.from(frame.payload.subarray(8)).toString();
        if (frame.flags === LOG_STDERR) stderr += text;
        else stdout += text;
      } else if (frame.type === FromShim.ResponseHead) {
        head = decodeFields(frame.payload);
      } else if (frame.type === FromShim.ResponseData) {
        pieces.push(frame.payload);
        options.onData?.(frame.payload);
      } else if (frame.type === FromShim.ResponseEnd) {
        failure = readFailure(decodeFields(frame.payload));
        if (head?.number(ResponseField.Error) === 1 && failure !== null) {
          failure = { ...failure, errorBody: Buffer.concat(pieces.splice(0)).toString() };
        }
      } else if (frame.type === FromShim.Done) {
        const done = decodeFields(frame.payload);
        return {
          requestId,
          contentType: head?.text(ResponseField.ContentType) ?? null,
          streaming: head?.number(ResponseField.Streaming) === 1,
          body: Buffer.concat(pieces),
          failure,
          done,
          alive: done.number(DoneField.RuntimeAlive) === 1,
          stdout,
          stderr,
          order,
        };
      } else {
        throw new Error(`frame 0x${frame.type.toString(16)} came unexpectedly`);
      }
    }
  }
}
