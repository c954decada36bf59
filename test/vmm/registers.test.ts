/** Floating point state stays in a guest process's host process (images/kernel/patches, uml-0005): it must be nobody else's. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { bootGuest, TestGuest } from "./guest.ts";
import { readLine } from "./stream.ts";

test("registers come through system calls, switches, signals, faults, forks and debuggers", async () => {
  using guest = new TestGuest(new URL("guest-registers.c", import.meta.url));
  const hypervisor = new UmlHypervisor({ runDir: guest.runDir });
  await using booted = await bootGuest(guest, hypervisor);
  const lines: string[] = [];
  for (let line = await readLine(booted.stream); line !== "end"; line = await readLine(booted.stream)) lines.push(line);
  assert.deepEqual(lines, [
    "threads wrong 0",
    "signals wrong 0",
    "faults wrong 0",
    "processes wrong 0",
    "debugger wrong 0",
  ]);
});
