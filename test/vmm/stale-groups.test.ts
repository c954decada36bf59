import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { detectCgroups } from "../../src/vmm/jail/cgroup.ts";
import { ownerName } from "../crash/processes.ts";
import { eventually } from "../functional/hearth.ts";
import { TestGuest } from "./guest.ts";

/** A process that is dead by now, as it stands in names. */
const deadOwner = async (): Promise<string> => {
  const child = spawn("sleep", ["60"]);
  const owner = ownerName(child.pid ?? 0);
  child.kill("SIGKILL");
  await once(child, "exit");
  return owner;
};

test("a dead monitor's group that cannot be removed yet is not waited for, and goes when it can", async () => {
  using guest = new TestGuest();
  const hypervisor = new UmlHypervisor({ runDir: guest.runDir });
  const parents = [...detectCgroups().parents.values()];
  const groups = parents.map((parent) => join(parent, "stale"));
  const owner = await deadOwner();
  const stale = groups.map((path) => `${path}.${owner}`);
  for (const path of stale) mkdirSync(path);
  // Like the last of its processes that lingers: a group below it keeps it from being removed.
  const [first = ""] = stale;
  const below = join(first, "below");
  mkdirSync(below);
  try {
    hypervisor.cleanStale();
    assert.ok(existsSync(first));
    rmdirSync(below);
    await eventually("all of it is gone", async () => (stale.some((path) => existsSync(path)) ? null : true));
  } finally {
    for (const path of [below, ...stale]) if (existsSync(path)) rmdirSync(path);
  }
});
