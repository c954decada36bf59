import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setImmediate } from "node:timers/promises";

const API = "/2018-06-01/runtime";
const ACCEPTED = 202;
const TOO_LARGE = 413;
const TURNS_FOR_OUTPUT = 3;

/** What the runtime sent for an invocation, or for its init. */
export interface Answer {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly trailers: NodeJS.Dict<string>;
  readonly body: string;
}

export interface EventOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** Sends the body in chunks rather than with a length. */
  readonly chunked?: boolean;
}

/**
 * A Runtime API for tests of the runtime clients: hands out events, collects answers. With it runs one runtime
 * process over a function made of `files`.
 */
export class RuntimeUnderTest implements AsyncDisposable {
  readonly #server: Server;
  readonly #folder: string;
  readonly #process: ChildProcess;
  readonly #events: { body: string; options: EventOptions }[] = [];
  readonly #answers: Answer[] = [];
  #onEvent: (() => void) | undefined;
  #onAnswer: (() => void) | undefined;
  #output = "";
  #requests = 0;
  #refusals = 0;
  /** Whether answers are refused (413) when they have hardly begun, and what becomes of their connection then. */
  refusal: "none" | "kept" | "reset" = "none";
  /** Exit code or signal of the runtime process. */
  readonly exited: Promise<number | string>;

  private constructor(server: Server, folder: string, child: ChildProcess) {
    this.#server = server;
    this.#folder = folder;
    this.#process = child;
    child.stdout?.on("data", (chunk: Buffer) => (this.#output += chunk.toString()));
    child.stderr?.on("data", (chunk: Buffer) => (this.#output += chunk.toString()));
    this.exited = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        resolve(code ?? String(signal));
        this.#onAnswer?.();
      });
    });
    server.on("request", (request, response) => {
      if (request.url === `${API}/invocation/next`) {
        const answer = (): void => {
          const event = this.#events.shift();
          if (event === undefined) return void (this.#onEvent = answer);
          this.#onEvent = undefined;
          this.#requests += 1;
          const headers = {
            "Lambda-Runtime-Aws-Request-Id": `request-${this.#requests}`,
            "Lambda-Runtime-Deadline-Ms": String(Date.now() + 60_000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:f",
            "Content-Type": "application/json",
            ...event.options.headers,
          };
          const length = { "Content-Length": Buffer.byteLength(event.body) };
          response.writeHead(200, event.options.chunked === true ? headers : { ...headers, ...length });
          if (event.options.chunked === true) response.write(event.body.slice(0, 3));
          response.end(event.options.chunked === true ? event.body.slice(3) : event.body);
        };
        return answer();
      }
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        if (this.refusal === "none" || response.headersSent) return;
        response.writeHead(TOO_LARGE, { "Content-Type": "application/json" }).end("{}\n");
        this.#refusals += 1;
        if (this.refusal === "reset") request.socket.resetAndDestroy();
        this.#onAnswer?.();
      });
      request.on("end", () => {
        if (response.headersSent) return;
        const { url = "", headers, trailers } = request;
        const answer = { path: url.replace(API, ""), headers, trailers, body: Buffer.concat(chunks).toString() };
        this.#answers.push(answer);
        response.writeHead(ACCEPTED, { "Content-Type": "application/json" }).end('{"status":"OK"}\n');
        this.#onAnswer?.();
      });
    });
  }

  /** Starts `command` as the runtime of a function with these files (name → text) and this handler. */
  static async start(
    command: readonly [string, ...string[]],
    files: Readonly<Record<string, string>>,
    handler: string,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<RuntimeUnderTest> {
    const folder = await mkdtemp(join(tmpdir(), "hearth-runtime-"));
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await writeFile(join(folder, name), text);
    }
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const [program, ...args] = command;
    const child = spawn(program, args, {
      cwd: folder,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        PATH: process.env["PATH"],
        AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${port}`,
        LAMBDA_TASK_ROOT: folder,
        _HANDLER: handler,
        AWS_LAMBDA_FUNCTION_NAME: "f",
        AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "128",
        AWS_LAMBDA_LOG_GROUP_NAME: "/aws/lambda/f",
        AWS_LAMBDA_LOG_STREAM_NAME: "stream",
        ...environment,
      },
    });
    return new RuntimeUnderTest(server, folder, child);
  }

  get folder(): string {
    return this.#folder;
  }

  /** All that the runtime has written to its standard output and error so far. */
  get output(): string {
    return this.#output;
  }

  /** Queues an event; resolves to what the runtime answers next. */
  async invoke(event: unknown, options: EventOptions = {}): Promise<Answer> {
    this.#events.push({ body: typeof event === "string" ? event : JSON.stringify(event), options });
    this.#onEvent?.();
    return await this.answer();
  }

  /** Queues an event whose answer is to be refused; resolves when it was. */
  async invokeRefused(event: unknown, refusal: "kept" | "reset"): Promise<void> {
    this.refusal = refusal;
    const before = this.#refusals;
    this.#events.push({ body: JSON.stringify(event), options: {} });
    this.#onEvent?.();
    while (this.#refusals === before) {
      await new Promise<void>((resolve) => {
        this.#onAnswer = resolve;
      });
    }
    this.refusal = "none";
  }

  /** What the runtime sends next. Rejects when it ends without. */
  async answer(): Promise<Answer> {
    for (;;) {
      const answer = this.#answers.shift();
      if (answer !== undefined) {
        // What it printed before its answer is in the pipe by now, and is read in the next turns.
        for (let turns = 0; turns < TURNS_FOR_OUTPUT; turns += 1) await setImmediate();
        return answer;
      }
      const hasEnded = this.#process.exitCode !== null || this.#process.signalCode !== null;
      if (hasEnded) throw new Error(`the runtime ended without an answer:\n${this.#output}`);
      await new Promise<void>((resolve) => {
        this.#onAnswer = resolve;
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.exited;
    this.#server.closeAllConnections();
    this.#server.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
