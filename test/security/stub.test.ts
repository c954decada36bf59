import assert from "node:assert/strict";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { vmmOptions } from "../../src/vmm/config.ts";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { systemCallsOf } from "../../src/vmm/jail/system-calls.ts";
import type { MicroVmExit } from "../../src/vmm/microvm.ts";
import { compile, TestGuest } from "../vmm/guest.ts";

/*
 * A guest that has taken over one of its kernel's stub processes, and the kernel with it: the stub is the real one, cut
 * out of the kernel that guests run, and has the filter that it gave itself.
 */

/** uretprobe and uprobe: the host's kernel asks no filter for these, and answers them only where it has put a probe. */
const EXEMPT: ReadonlySet<string> = new Set(["335", "336"]);

let guest: TestGuest;
let hypervisor: UmlHypervisor;
let stub: string;
let next = 0;

/** ELF's magic number, for 64 bits. */
const ELF = Buffer.from("\u007FELF\u0002");
/** Longer than the stub, which is a page or two. */
const STUB_BYTES_MAX = 32 * 1024;

/** Of e_type, at its place in an ELF header: a program, and no library such as the vDSO, which is in the kernel too. */
const ET_EXEC = 2;
const TYPE_OFFSET = 16;

/** The program that is in the kernel's: it begins like one too. */
const cutOutStub = (kernel: Buffer): Buffer => {
  let at = 0;
  do at = kernel.indexOf(ELF, at + 1);
  while (at > 0 && kernel.readUInt16LE(at + TYPE_OFFSET) !== ET_EXEC);
  assert.ok(at > 0, "there is no program in the kernel");
  return kernel.subarray(at, at + STUB_BYTES_MAX);
};

before(() => {
  guest = new TestGuest();
  const attacker = join(guest.directory, "stub-attack");
  compile(new URL("stub.c", import.meta.url).pathname, attacker, ["-static", "-std=gnu17"]);
  stub = join(guest.directory, "stub");
  writeFileSync(stub, cutOutStub(readFileSync(vmmOptions().umlKernel)));
  chmodSync(stub, 0o644);
  hypervisor = new UmlHypervisor({ runDir: guest.runDir, umlKernel: attacker });
});

after(() => {
  guest[Symbol.dispose]();
});

const attempt = async (what: string): Promise<{ readonly said: string; readonly exit: MicroVmExit }> => {
  const said: Uint8Array[] = [];
  const microVm = await hypervisor.spawn({
    id: `stub-${String(process.pid)}-${String(next++)}`,
    memoryMib: 64,
    drives: [
      { path: guest.image, readOnly: true },
      { path: stub, readOnly: true },
    ],
    init: "/init",
    initArguments: [what],
    onConsole: (chunk) => said.push(chunk),
  });
  const exit = await microVm.exited;
  return { said: Buffer.concat(said).toString().trim(), exit };
};

test("of all system calls a stub process can make two: to map guest memory and to unmap it", async () => {
  const { said, exit } = await attempt("calls");
  const { numbers } = systemCallsOf();
  const made = said.split(" ").filter((number) => !EXEMPT.has(number));
  assert.deepEqual(made, [String(numbers.get("mmap")), String(numbers.get("munmap")), "done"], exit.detail);
});

test("a stub maps nothing but what is shared, at a place that is told", async () => {
  // MAP_SHARED and MAP_FIXED.
  assert.equal((await attempt("flags")).said, "11 done");
});
