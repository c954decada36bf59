/**
 * What the Micro Manager and the shim say to each other: one vsock stream per microVM, opened by the shim
 * to (host CID 2, SHIM_PORT) as soon as the guest is up, carrying frames in both directions.
 *
 * Frame: u32le payload length, u8 type, u8 flags, u16le zero, payload. Payloads are either raw bytes or a
 * list of fields: u16le key, u16le zero, u32le length, value. Numbers in fields are u64le, texts UTF-8.
 * A field may repeat where its comment says so; unknown fields are skipped, unknown frame types are an error.
 *
 * `native/shim/protocol.h` holds the same numbers; `shim-protocol.test.ts` holds the two together.
 */

export const SHIM_PROTOCOL_VERSION = 1;
/** The vsock port on the host (CID 2) that the shim connects to. */
export const SHIM_PORT = 1024;
export const FRAME_HEADER_BYTES = 8;
/** Longest payload of one frame, both ways. Bodies travel in as many frames as they need. */
export const FRAME_PAYLOAD_BYTES_MAX: number = 256 * 1024;

/** Frames from the host to the shim. */
export const ToShim = {
  /** Fields: everything of `ConfigureField`. Mounts the drives and starts the runtime (init). Once per microVM. */
  Configure: 0x01,
  /** Fields: `InvokeField`. The event's payload follows in `Payload` frames. Only when the shim is ready. */
  Invoke: 0x02,
  /** Raw bytes of the event. `FLAG_LAST` on the last one (which may be empty). */
  Payload: 0x03,
  /** Fields: `ShutdownField`. Ends runtime and extensions as Lambda does, then the shim closes the stream. */
  Shutdown: 0x04,
  /** Asks for a `Status` frame. */
  Query: 0x05,
  /**
   * Fields: `ConfigureField` as far as it is known before the function is: RootDrive, Argument, Environment,
   * WorkingDirectory, PidsMax, OpenFilesMax. Starts the runtime ahead of its function; only before Configure, once.
   * Configure then comes without RootDrive.
   */
  Prepare: 0x06,
  /**
   * Init has had its time, as the host reckons it (what the guest could use of it): an init that is still under way ends
   * as at its time limit, with `InitFailed`. It does nothing when init is over, or runs within an invocation.
   */
  EndInit: 0x07,
} as const;

/** Frames from the shim to the host. */
export const FromShim = {
  /** Fields: `HelloField`. First frame after connecting. */
  Hello: 0x81,
  /** Fields: `ReadyField`. Init is over: the runtime (and every extension) has asked for its first event. */
  Ready: 0x82,
  /** Fields: `FailureField`. Init ended without becoming ready. The next Invoke starts it once more (suppressed init). */
  InitFailed: 0x83,
  /** One chunk of the function's output: u64le Unix time in µs, then the bytes. Flags: LOG_STDERR. */
  Log: 0x84,
  /** Fields: `ResponseField`. The runtime began to answer. `ResponseData` frames follow, then `ResponseEnd`. */
  ResponseHead: 0x85,
  /** Raw bytes of the answer. */
  ResponseData: 0x86,
  /** Fields: `FailureField` (none of them when the answer is complete and good). */
  ResponseEnd: 0x87,
  /** Fields: `DoneField`. The invocation is over in every respect: nothing of it will follow. */
  Done: 0x88,
  /** Fields: `StatusField`. Answer to `Query`. */
  Status: 0x89,
  /** UTF-8 text: the shim itself cannot go on (a mount failed, a protocol error). The microVM is to be ended. */
  Fault: 0x8a,
  /** No payload. The runtime that Prepare started waits for its function. */
  Prepared: 0x8b,
} as const;

export const FLAG_LAST = 0x01;
export const LOG_STDERR = 0x01;

export const ConfigureField = {
  /** Guest device of an EROFS image to stack over the base as the function's root (the runtime); 0 or more, lowest first. */
  RootDrive: 1,
  /** Guest device of the function's code, mounted at /var/task. */
  CodeDrive: 2,
  /** Guest device of a layer, stacked at /opt; 0 or more, lowest first. */
  LayerDrive: 3,
  /** One argument of the runtime's command line; repeated in order. The first is the absolute path in the function's root. */
  Argument: 4,
  /** One `NAME=value`; repeated. */
  Environment: 5,
  /** Working directory of the runtime, e.g. /var/task. */
  WorkingDirectory: 6,
  /** Bytes. memory.max of the function's cgroup. */
  MemoryBytesMax: 7,
  /** Bytes. Size of /tmp. */
  TmpBytesMax: 8,
  /** pids.max of the function's cgroup (threads and processes together). */
  PidsMax: 9,
  /** Milliseconds. Longest init before it is cut off; the first Invoke then starts it again within the function's timeout. */
  InitTimeoutMs: 10,
  /** Milliseconds. The function's timeout. */
  TimeoutMs: 11,
  /** Used in the Extensions API and in messages. */
  FunctionName: 12,
  FunctionVersion: 13,
  Handler: 14,
  AccountId: 15,
  /** RLIMIT_NOFILE of the function. */
  OpenFilesMax: 16,
  /** Unix time in µs at the host: the guest's clock is set to it when it is off by more than a millisecond. */
  UnixTimeUs: 17,
  /** The guest's IPv4 address with its prefix, as text: `169.254.76.2/30`. Without it the function has its loopback only. */
  NetworkAddress: 18,
  /** The address that its default route leads to. Always with NetworkAddress. */
  NetworkGateway: 19,
  /** A name server's address for the function's resolv.conf; 0 to 3 (MAXNS of resolv.h). */
  NameServer: 20,
  /** Guest device of a writable drive with an empty ext2 file system: /tmp. Without it /tmp is in the guest's memory. */
  ScratchDrive: 22,
  /**
   * 1: the runtime that Prepare started becomes the function's. Absent or 0: it is killed and the runtime is started
   * anew, for functions whose settings a process takes up only as it starts.
   */
  TakePrepared: 23,
} as const;

export const InvokeField = {
  RequestId: 1,
  /**
   * Unix time in ms. The shim ends the invocation, to the millisecond, when as much time has passed since it had the
   * whole event as lies between `UnixTimeUs` and this.
   */
  DeadlineMs: 2,
  FunctionArn: 3,
  TraceId: 4,
  /** JSON text, already decoded from base64. */
  ClientContext: 5,
  CognitoIdentity: 6,
  TenantId: 7,
  ContentType: 8,
  /** Bytes of the payload that follows. */
  PayloadBytes: 9,
  /** Bytes. An answer over this, buffered or streamed, is refused by the Runtime API with 413. */
  ResponseBytesMax: 10,
  /** Unix time in µs at the host, as in `ConfigureField.UnixTimeUs` (a frozen guest may lag). */
  UnixTimeUs: 11,
} as const;

export const ShutdownField = {
  /** spindown | timeout | failure */
  Reason: 1,
  /** Milliseconds until everything is killed. */
  GraceMs: 2,
} as const;

export const HelloField = {
  ProtocolVersion: 1,
  /** Guest's monotonic clock in µs: how long the kernel has been up. */
  UptimeUs: 2,
} as const;

export const ReadyField = {
  /** µs from the runtime's start (of a prepared one: from Configure) to its first `next`. */
  InitDurationUs: 1,
} as const;

/** Why something ended badly. All are optional; `Outcome` says which others there are. */
export const FailureField = {
  /** A `FailureOutcome`. */
  Outcome: 1,
  /** Value of Lambda-Runtime-Function-Error-Type, cleaned as the Runtime API does. */
  ErrorType: 2,
  /** Body the runtime sent with the error (JSON as it came), where it did not come as ResponseData. */
  ErrorBody: 3,
  /** Exit code of the runtime process, when it exited. */
  ExitCode: 4,
  /** Signal that ended the runtime process. */
  Signal: 5,
  /** µs from the runtime's start (init) or the invocation's start to the failure. */
  DurationUs: 6,
} as const;

export const FailureOutcome = {
  /** The runtime reported an error through the Runtime API. */
  Reported: 1,
  /** The runtime (or an extension) exited. */
  Exited: 2,
  /** The deadline passed. */
  TimedOut: 3,
  /** The function's cgroup ran out of memory and the kernel killed in it. */
  OutOfMemory: 4,
  /** The answer was larger than ResponseBytesMax. */
  ResponseTooLarge: 5,
  /** The runtime could not be started at all (no such file, no permission): ErrorBody says why as plain text. */
  NotStarted: 6,
  /** The runtime closed the connection before the answer was whole. */
  Truncated: 7,
} as const;

export const ResponseField = {
  ContentType: 1,
  /** 1 when the runtime streams (Lambda-Runtime-Function-Response-Mode: streaming), else absent. */
  Streaming: 2,
  /** 1 when what follows is no answer but the body of an error report; `ResponseEnd` then has an ErrorType. */
  Error: 3,
} as const;

export const DoneField = {
  /**
   * µs from the event handed to the runtime to its next `next` (or to the failure). From the Invoke on when an init ran
   * inside the invocation.
   */
  DurationUs: 1,
  /** Bytes. Peak of the function's memory over the microVM's life; file pages that can be dropped do not count. */
  MemoryBytesPeak: 2,
  /** µs of a (suppressed) init that ran inside this invocation. */
  InitDurationUs: 3,
  /** 1 when the runtime is up and waiting; 0 when it died and the next Invoke will start it again. */
  RuntimeAlive: 4,
  /** Only with RuntimeAlive 0: why it is down, a `FailureOutcome`, and the exit facts as in `FailureField`. */
  Outcome: 5,
  ExitCode: 6,
  Signal: 7,
  /** 1 when that init failed, and the event was never handed over. */
  InitFailed: 8,
} as const;

export const StatusField = {
  MemoryBytesCurrent: 1,
  MemoryBytesPeak: 2,
  /** Processes in the function's cgroup. */
  Pids: 3,
} as const;

export type FrameType = (typeof ToShim)[keyof typeof ToShim] | (typeof FromShim)[keyof typeof FromShim];

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** One field: a number becomes a u64le, a text UTF-8, bytes stay. */
export type Field = readonly [key: number, value: number | bigint | string | Uint8Array];
