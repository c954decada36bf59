import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { detectCgroups } from "../../src/vmm/jail/cgroup.ts";
import { eventually } from "../functional/hearth.ts";
import { TestGuest } from "../vmm/guest.ts";
import { processesIn } from "./processes.ts";
import { Random } from "./random.ts";

const MONITOR = fileURLToPath(new URL("monitor.ts", import.meta.url));
const ROUNDS = 12;
const KILL_AFTER_MS_MAX = 40;
/** Less than a guest takes to find out by itself that it has no host. */
const END_MS_MAX = 3_000;

const groupsOf = (pid: number | undefined): string[] =>
  [...detectCgroups().parents.values()].flatMap((parent) =>
    readdirSync(parent).filter((name) => name.startsWith(`crash-${String(pid)}-`)),
  );

test("a monitor killed in the midst of making microVMs leaves none, and the next start clears the rest away", async (t) => {
  using guest = new TestGuest();
  const hypervisor = new UmlHypervisor({ runDir: guest.runDir });
  const random = new Random();
  t.diagnostic(`seed ${random.seed}`);
  for (let round = 0; round < ROUNDS; round += 1) {
    const monitor = spawn(process.execPath, [MONITOR, guest.runDir, guest.image], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(monitor, "exit");
    await once(monitor.stdout, "data");
    await sleep(random.below(KILL_AFTER_MS_MAX));
    monitor.kill("SIGKILL");
    await exited;
    // Nobody cleans up yet: they end by themselves.
    await eventually(
      "every process of the monitor's microVMs ends",
      async () => (processesIn(guest.runDir).length === 0 ? true : null),
      END_MS_MAX,
    );
    hypervisor.cleanStale();
    // One that was killed at once has not made it yet.
    const kept = (existsSync(guest.runDir) ? readdirSync(guest.runDir) : []).filter(
      (name) => !name.startsWith(".program-"),
    );
    assert.deepEqual(kept, []);
    await eventually("its cgroups are gone", async () => (groupsOf(monitor.pid).length === 0 ? true : null));
  }
});
