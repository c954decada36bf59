import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";

import type { Hypervisor, MicroVm, MicroVmConfig } from "../../src/vmm/microvm.ts";
import { readLine } from "./stream.ts";

/** Tests may run under a preloaded sanitizer, the tools they call should not. */
const WITHOUT_SANITIZERS = { ...process.env, LD_PRELOAD: "" };

/** Compiles one of the tests' C programs. */
export const compile = (source: string, target: string, options: readonly string[] = []): void => {
  execFileSync("cc", ["-O2", "-Wall", "-Wextra", "-Werror", ...options, "-o", target, source], {
    env: WITHOUT_SANITIZERS,
  });
};

/** A root image with a guest program as /init, and a run directory. Disposing removes them. */
export class TestGuest implements Disposable {
  readonly directory: string;
  readonly image: string;
  readonly runDir: string;

  /** `files`: further ones of the image, by name. */
  constructor(
    source: URL = new URL("guest-init.c", import.meta.url),
    files: Readonly<Record<string, Uint8Array>> = {},
  ) {
    this.directory = mkdtempSync(join(tmpdir(), "hv-"));
    chmodSync(this.directory, 0o755);
    this.image = join(this.directory, "root.erofs");
    this.runDir = join(this.directory, "r");
    const root = join(this.directory, "root");
    for (const name of ["dev", "proc", "tmp"]) mkdirSync(join(root, name), { recursive: true });
    compile(source.pathname, join(root, "init"), ["-static"]);
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(root, name), bytes);
    execFileSync("mkfs.erofs", ["--quiet", this.image, root], { env: WITHOUT_SANITIZERS });
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export interface BootedGuest extends AsyncDisposable {
  readonly vm: MicroVm;
  readonly stream: Duplex;
}

let next = 0;

/** Spawns the test guest and waits for its hello. */
export const bootGuest = async (
  guest: TestGuest,
  hypervisor: Hypervisor,
  config: Partial<MicroVmConfig> = {},
): Promise<BootedGuest> => {
  const vm = await hypervisor.spawn({
    id: `test-${String(process.pid)}-${String(next++)}`,
    memoryMib: 64,
    drives: [{ path: guest.image, readOnly: true }],
    init: "/init",
    ...config,
  });
  const accepted = Promise.withResolvers<Duplex>();
  vm.listen(1024, accepted.resolve);
  const stream = await Promise.race([
    accepted.promise,
    vm.exited.then((exit) => {
      throw new Error(`ended before its hello: ${exit.detail}`);
    }),
  ]);
  const hello = await readLine(stream);
  if (hello !== "hello") throw new Error(`the guest said ${JSON.stringify(hello)}`);
  return { vm, stream, [Symbol.asyncDispose]: () => vm[Symbol.asyncDispose]() };
};
