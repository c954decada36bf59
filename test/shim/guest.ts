import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import type { Drive, MicroVm } from "../../src/vmm/microvm.ts";
import { decodeFields } from "../../src/wire/shim-codec.ts";
import { ConfigureField, FromShim, HelloField } from "../../src/wire/shim-protocol.ts";
import type { Field } from "../../src/wire/shim-protocol.ts";
import { ShimDriver } from "./driver.ts";

const repository = new URL("../../", import.meta.url).pathname;
const SHIM_FLAGS = "-std=c17 -static -O2 -Wall -Wextra -Werror -s".split(" ");

/** Compiles the shim's sources, or those of the tests' runtime, into one static program. */
export const buildShim = (into: string): void => {
  execFileSync("sh", ["-c", `cc ${SHIM_FLAGS.join(" ")} native/shim/*.c -o "$0"`, into], { cwd: repository });
};

export const buildRuntime = (into: string): void => {
  execFileSync("cc", ["-static", "-O1", "-o", into, `${repository}test/shim/runtime.c`]);
};

/** Images for the tests: a base with nothing but the shim and mount points, and the function's code. */
export class ShimImages implements Disposable {
  readonly directory: string;
  readonly base: Drive;
  readonly code: Drive;

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), "hs-"));
    chmodSync(this.directory, 0o755);
    const base = join(this.directory, "base");
    for (const name of ["dev", "proc", "sys", "tmp", "run"]) mkdirSync(join(base, name), { recursive: true });
    buildShim(join(base, "shim"));
    this.base = this.image("base", base);
    const code = join(this.directory, "code");
    mkdirSync(code);
    buildRuntime(join(code, "bootstrap"));
    this.code = this.image("code", code);
  }

  /** An image of a directory's content. */
  image(name: string, tree: string): Drive {
    const path = join(this.directory, `${name}.erofs`);
    execFileSync("mkfs.erofs", ["--quiet", path, tree]);
    return { path, readOnly: true };
  }

  /** An image with the given files, whose contents are texts; the tests' runtime where null. */
  imageOf(name: string, files: Readonly<Record<string, string | null>>): Drive {
    const tree = join(this.directory, `${name}.tree`);
    for (const [path, text] of Object.entries(files)) {
      const target = join(tree, path);
      mkdirSync(join(target, ".."), { recursive: true });
      if (text === null) copyFileSync(join(this.directory, "code", "bootstrap"), target);
      else writeFileSync(target, text);
    }
    return this.image(name, tree);
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A microVM whose shim has said hello. */
export class ShimGuest implements AsyncDisposable {
  readonly vm: MicroVm;
  readonly driver: ShimDriver;
  readonly uptimeUs: number;
  console: string;

  private constructor(vm: MicroVm, driver: ShimDriver, uptimeUs: number) {
    this.vm = vm;
    this.driver = driver;
    this.uptimeUs = uptimeUs;
    this.console = "";
  }

  static async boot(
    images: ShimImages,
    id: string,
    drives: readonly Drive[] = [images.code],
    scratch: { readonly mib?: number; readonly directory?: string } = {},
  ): Promise<ShimGuest> {
    const scratchDir = scratch.directory === undefined ? {} : { scratchDir: scratch.directory };
    const hypervisor = new UmlHypervisor({ runDir: join(images.directory, "r"), ...scratchDir });
    let console = "";
    const vm = await hypervisor.spawn({
      id,
      memoryMib: 256,
      drives: [images.base, ...drives],
      init: "/shim",
      ...(scratch.mib === undefined ? {} : { scratchMib: scratch.mib }),
      onConsole: (chunk) => {
        console += Buffer.from(chunk).toString();
      },
    });
    const stream = await Promise.race([
      new Promise<Duplex>((resolve) => {
        vm.listen(1024, resolve);
      }),
      vm.exited.then((exit): never => {
        throw new Error(`the guest ended before its hello: ${exit.detail}\n${console}`);
      }),
    ]);
    const driver = new ShimDriver(stream);
    const hello = await driver.until([FromShim.Hello]);
    return new ShimGuest(vm, driver, decodeFields(hello.payload).number(HelloField.UptimeUs) ?? 0);
  }

  /** What a Configure needs at least, for the tests' runtime as /var/task/bootstrap. */
  fields(more: readonly Field[] = []): Field[] {
    return [
      [ConfigureField.CodeDrive, this.vm.deviceOf(1)],
      [ConfigureField.Argument, "/var/task/bootstrap"],
      [ConfigureField.Environment, "GREETING=hello"],
      [ConfigureField.WorkingDirectory, "/var/task"],
      [ConfigureField.MemoryBytesMax, 128 * 1024 * 1024],
      [ConfigureField.TmpBytesMax, 64 * 1024 * 1024],
      [ConfigureField.PidsMax, 64],
      [ConfigureField.InitTimeoutMs, 5000],
      [ConfigureField.TimeoutMs, 10_000],
      [ConfigureField.FunctionName, "f"],
      [ConfigureField.FunctionVersion, "$LATEST"],
      [ConfigureField.Handler, "h"],
      [ConfigureField.AccountId, "000000000000"],
      [ConfigureField.OpenFilesMax, 1024],
      ...more,
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm.kill("the test is over");
  }
}
