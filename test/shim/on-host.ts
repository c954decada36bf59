import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigureField, FromShim } from "../../src/wire/shim-protocol.ts";
import type { Field } from "../../src/wire/shim-protocol.ts";
import { ShimDriver } from "./driver.ts";
import { buildRuntime } from "./guest.ts";

const LISTEN_WAIT_MS_MAX = 5_000;
const LISTEN_RETRY_MS = 5;
const repository = new URL("../../", import.meta.url).pathname;
const SANITIZED = "-std=c17 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -Wall -Wextra -Werror";

const compile = (sources: string, into: string): void => {
  execFileSync("sh", ["-c", `cc ${SANITIZED} ${sources} -o "$0"`, into], { cwd: repository });
};

/** The shim's programs built for this host under address and undefined-behaviour sanitizers. Needs cc with libasan. */
export class SanitizedShim implements Disposable {
  readonly directory: string = mkdtempSync(join(tmpdir(), "ho-"));
  readonly shim: string = join(this.directory, "shim");
  readonly fuzzer: string = join(this.directory, "fuzz");
  readonly runtime: string = join(this.directory, "bootstrap");
  readonly corpus: string = join(repository, "native/shim/test/corpus");

  constructor() {
    const guestOnly = "grep -vE 'guest.c|process.c|shim/test'";
    compile(`$(ls native/shim/*.c | ${guestOnly}) native/shim/test/on-host.c`, this.shim);
    const loopOnly = "grep -vE 'guest.c|process.c|main.c|server.c|logs.c'";
    compile(`$(ls native/shim/*.c | ${loopOnly}) native/shim/test/fuzz.c`, this.fuzzer);
    buildRuntime(this.runtime);
  }

  /** A directory in place of /opt, with the tests' runtime as extensions of these names. */
  opt(names: readonly string[]): string {
    const opt = mkdtempSync(join(this.directory, "opt-"));
    mkdirSync(join(opt, "extensions"));
    for (const name of names) copyFileSync(this.runtime, join(opt, "extensions", name));
    return opt;
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 0;
};

/** The shim as a process of this host, having said hello. */
export class HostShim implements AsyncDisposable {
  readonly driver: ShimDriver;
  readonly port: number;
  readonly #process: ChildProcess;
  readonly #server: Server;
  readonly #programs: SanitizedShim;
  #stderr = "";

  private constructor(programs: SanitizedShim, process: ChildProcess, server: Server, stream: Socket, port: number) {
    this.#programs = programs;
    this.#process = process;
    this.#server = server;
    this.driver = new ShimDriver(stream);
    this.port = port;
    process.stderr?.on("data", (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
  }

  static async start(programs: SanitizedShim, opt = "/nonexistent"): Promise<HostShim> {
    const path = join(programs.directory, `${Math.random().toString(36).slice(2)}.sock`);
    const server = createServer().listen(path);
    await once(server, "listening");
    const port = await freePort();
    const env = { SHIM_SOCKET: path, SHIM_API_PORT: String(port), SHIM_OPT: opt };
    const process = spawn(programs.shim, [], { env, stdio: ["ignore", "inherit", "pipe"] });
    const [stream] = (await once(server, "connection")) as [Socket];
    const shim = new HostShim(programs, process, server, stream, port);
    await shim.driver.until([FromShim.Hello]);
    return shim;
  }

  fields(more: readonly Field[] = []): Field[] {
    return [
      [ConfigureField.Argument, this.#programs.runtime],
      [ConfigureField.Environment, `API_PORT=${this.port}`],
      [ConfigureField.FunctionName, "f"],
      [ConfigureField.AccountId, "000000000000"],
      ...more,
    ];
  }

  /** A raw connection to the Runtime API. */
  async client(): Promise<Socket> {
    // The shim says hello before it listens: whoever comes at once may be early.
    for (const endMs = performance.now() + LISTEN_WAIT_MS_MAX; ; await sleep(LISTEN_RETRY_MS)) {
      const socket = connect(this.port, "127.0.0.1");
      socket.on("error", () => {});
      const connected = await once(socket, "connect").then(
        () => true,
        () => false,
      );
      if (connected) return socket;
      if (performance.now() > endMs) throw new Error(`nobody listens on port ${this.port}`);
    }
  }

  /** Ends it and throws when a sanitizer had something to say. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.driver.destroy();
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, "exit");
    this.#server.close();
    if (this.#process.exitCode !== 0) {
      throw new Error(`the shim ended with ${this.#process.exitCode ?? this.#process.signalCode}:\n${this.#stderr}`);
    }
  }
}
