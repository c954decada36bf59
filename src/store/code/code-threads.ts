import { Worker } from "node:worker_threads";
import type { Clock, Timer } from "../../lib/clock.ts";
import { ServiceError, serviceFailure } from "../../wire/errors.ts";

/** SHA-256 in lower-case hex, and the size, of a file. */
export interface Digested {
  readonly sha256: string;
  readonly bytes: number;
}

/** An image that was made, with its own checksum and size. */
export interface MadeImage extends Digested {
  readonly imagePath: string;
}

/** `make` unpacks the archive below `directory`, and leaves there nothing but the image. */
export type Request =
  | { readonly kind: "digest"; readonly path: string }
  | { readonly kind: "make"; readonly zipPath: string; readonly directory: string };

export type CodeFailure =
  | {
      readonly kind: "service";
      readonly name: string;
      readonly status: number;
      readonly message: string;
      readonly members: ServiceError["members"];
    }
  | { readonly kind: "other"; readonly message: string; readonly code: string | null; readonly syscall: string | null };

export type Answer = { readonly result: Digested | MadeImage } | { readonly failure: CodeFailure };

/**
 * Hearth's own: threads that read archives at once. An upload costs one CPU for up to some seconds, and functions want
 * the others; whoever uploads waits his turn.
 */
const THREADS_MAX = 2;
/**
 * Hearth's own: memory that V8 may take for one archive. An archive of ZIP_ENTRIES_MAX entries takes some 150 MB; a
 * thread that wants more ends, and nothing else does.
 */
const HEAP_MB_MAX = 512;
/** Hearth's own: a thread that has nothing to do ends after this; starting one takes some 30 ms of a CPU. */
const IDLE_MS = 10_000;

const SCRIPT = new URL("code-thread.ts", import.meta.url);

const errorOf = (failure: CodeFailure): Error => {
  if (failure.kind === "service") {
    return new ServiceError(failure.name, failure.status, failure.message, failure.members);
  }
  const { message, code, syscall } = failure;
  return Object.assign(new Error(message), code === null ? {} : { code }, syscall === null ? {} : { syscall });
};

/** A thread, and what it was asked to do: one thing at a time. */
class Thread {
  readonly #thread: Worker;
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | null = null;
  #ended: Error | null = null;

  constructor() {
    this.#thread = new Worker(SCRIPT, { resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX } });
    this.#thread.on("message", (answer: Answer) => this.#waiting?.resolve(answer));
    this.#thread.on("error", (error: Error) => this.#fail(error));
    this.#thread.on("exit", () => this.#fail(new Error("the thread that reads archives ended")));
  }

  /** False when it ended, for want of memory for instance. */
  get usable(): boolean {
    return this.#ended === null;
  }

  /** Idle threads do not keep the process alive. */
  setIdle(idle: boolean): void {
    if (idle) this.#thread.unref();
    else this.#thread.ref();
  }

  /** SHA-256 and size of a file. Throws what reading it threw. */
  async digest(path: string): Promise<Digested> {
    return this.#call({ kind: "digest", path });
  }

  /** Makes the image of an archive below an empty directory. Throws ServiceError for a bad archive. */
  async make(zipPath: string, directory: string): Promise<MadeImage> {
    return (await this.#call({ kind: "make", zipPath, directory })) as MadeImage;
  }

  end(): void {
    void this.#thread.terminate();
  }

  async #call(request: Request): Promise<Digested | MadeImage> {
    if (this.#ended !== null) throw this.#ended;
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#waiting = { resolve, reject };
    this.#thread.postMessage(request);
    const answer = await promise;
    if ("failure" in answer) throw errorOf(answer.failure);
    return answer.result;
  }

  #fail(cause: Error): void {
    this.#ended ??= serviceFailure(`The archive could not be read: ${cause.message}.`, cause);
    this.#waiting?.reject(this.#ended);
  }
}

/** A thread that nobody else uses until this is disposed of. */
export interface CodeThread extends Pick<Thread, "digest" | "make">, Disposable {}

/** Hands out threads, a few at once, in the order they were asked for. Idle ones end after a while. */
export class CodeThreads {
  readonly #clock: Clock;
  readonly #idle: { readonly thread: Thread; readonly timer: Timer }[] = [];
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Resolves with a thread as soon as one of THREADS_MAX is free. */
  async take(): Promise<CodeThread> {
    if (this.#taken < THREADS_MAX) this.#taken += 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      const thread = this.#idleOne() ?? new Thread();
      thread.setIdle(false);
      return {
        digest: (path) => thread.digest(path),
        make: (zipPath, directory) => thread.make(zipPath, directory),
        [Symbol.dispose]: () => this.#giveBack(thread),
      };
    } catch (error) {
      this.#next();
      throw error;
    }
  }

  #idleOne(): Thread | null {
    const found = this.#idle.pop();
    found?.timer[Symbol.dispose]();
    return found?.thread ?? null;
  }

  #giveBack(thread: Thread): void {
    if (thread.usable) {
      thread.setIdle(true);
      const entry = { thread, timer: this.#clock.after(IDLE_MS, () => this.#end(thread)) };
      this.#idle.push(entry);
    }
    this.#next();
  }

  #end(thread: Thread): void {
    const at = this.#idle.findIndex((entry) => entry.thread === thread);
    if (at >= 0) this.#idle.splice(at, 1);
    thread.end();
  }

  /** The next in line takes over the place, so that nobody comes in between. */
  #next(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#taken -= 1;
    else next();
  }
}
