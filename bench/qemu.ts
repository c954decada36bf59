import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Result } from "./result.ts";
import { spread } from "./statistics.ts";

const BOOTS = 7;
const BOOT_MS_MAX = 60_000;
const MEMORY_MIB = 128;
/** The frequencies are given: an emulated timer is too uneven to measure them by, and then the guest hangs. */
const COMMAND_LINE = "console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz=1000000 lpj=1000000";
const EMULATOR = "qemu-system-x86_64";
/** The least that an init can do: say that it runs, and end. */
const INIT =
  '#include <unistd.h>\n#include <sys/reboot.h>\nint main(void) { write(1, "hello\\n", 6); reboot(RB_AUTOBOOT); return 1; }\n';

/** The newest of Debian's small kernels for virtual machines on this host, or null. */
const kernelPath = async (): Promise<string | null> => {
  const names = await readdir("/boot").catch(() => []);
  const name = names
    .filter((file) => /^vmlinuz-.*-cloud-amd64$/.test(file))
    .toSorted()
    .at(-1);
  return name === undefined ? null : join("/boot", name);
};

const ALIGNMENT = 4;
const padded = (bytes: Buffer): Buffer =>
  Buffer.concat([bytes, Buffer.alloc((ALIGNMENT - (bytes.length % ALIGNMENT)) % ALIGNMENT)]);

/** One entry of a cpio archive, "newc" (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). */
const cpioEntry = (name: string, mode: number, data: Buffer): Buffer => {
  const fields = [0, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length + 1, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`;
  return Buffer.concat([padded(Buffer.from(header)), padded(data)]);
};

/** An initial file system with nothing but `/init` in it. */
const makeInitrd = async (directory: string): Promise<string> => {
  const source = join(directory, "init.c");
  const program = join(directory, "init");
  await writeFile(source, INIT);
  await promisify(execFile)("cc", ["-O2", "-static", "-o", program, source]);
  const archive = Buffer.concat([
    cpioEntry("init", 0o100755, await readFile(program)),
    cpioEntry("TRAILER!!!", 0, Buffer.alloc(0)),
  ]);
  const path = join(directory, "initrd");
  await writeFile(path, archive);
  return path;
};

const bootOnce = async (kernel: string, initrd: string): Promise<number> => {
  const startedMs = performance.now();
  const machine = spawn(
    EMULATOR,
    [
      `-M microvm,rtc=on -accel tcg -cpu max -m ${String(MEMORY_MIB)}`,
      "-nodefaults -no-user-config -no-reboot -display none -serial stdio",
      `-kernel ${kernel} -initrd ${initrd}`,
    ]
      .flatMap((words) => words.split(" "))
      .concat("-append", COMMAND_LINE),
    { stdio: ["ignore", "pipe", "ignore"], timeout: BOOT_MS_MAX },
  );
  const ended = once(machine, "exit");
  let output = "";
  let helloMs: number | null = null;
  for await (const chunk of machine.stdout as AsyncIterable<Buffer>) {
    output += chunk.toString();
    if (helloMs === null && output.includes("hello")) helloMs = performance.now() - startedMs;
  }
  await ended;
  if (helloMs === null) throw new Error(`QEMU's guest did not come up: ${output.slice(-300)}`);
  return helloMs;
};

/** QEMU's microvm machine, emulated, as on a host without virtualisation: null where it or a kernel is missing. */
export const qemu = async (): Promise<Result | null> => {
  const kernel = await kernelPath();
  const found = await promisify(execFile)(EMULATOR, ["--version"]).then(
    () => true,
    () => false,
  );
  if (kernel === null || !found) return null;
  const directory = await mkdtemp(join(tmpdir(), "hearth-qemu-"));
  try {
    const initrd = await makeInitrd(directory);
    const timesMs: number[] = [];
    for (let n = 0; n < BOOTS; n += 1) timesMs.push(await bootOnce(kernel, initrd));
    return { ...spread(timesMs), samplesMs: timesMs };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};
