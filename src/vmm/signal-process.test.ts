import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { parentOf, signalProcess } from "./signal-process.ts";

const start = async (): Promise<{ readonly child: ChildProcess; readonly pid: number }> => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  await once(child, "spawn");
  return { child, pid: child.pid ?? 0 };
};

const end = async (child: ChildProcess): Promise<NodeJS.Signals | null> => {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return child.signalCode;
};

test("only the process that is meant gets the signal, and no descriptor stays", async () => {
  const descriptors = readdirSync("/proc/self/fd").length;
  const { child, pid } = await start();
  assert.equal(parentOf(pid), process.pid);
  signalProcess(pid, "SIGKILL", () => false);
  signalProcess(pid, "SIGKILL", (number) => parentOf(number) !== process.pid);
  // What the check throws is not the caller's.
  signalProcess(pid, "SIGKILL", () => {
    throw new Error("gone");
  });
  assert.equal(child.signalCode, null);
  signalProcess(pid, "SIGTERM", (number) => parentOf(number) === process.pid);
  assert.equal(await end(child), "SIGTERM");
  assert.equal(readdirSync("/proc/self/fd").length, descriptors);
});

test("a process that ends while it is looked at is not mistaken for its successor", async () => {
  const { child, pid } = await start();
  child.kill("SIGKILL");
  await end(child);
  // The number is free from here on; nothing is there to be hit, whatever the check says.
  signalProcess(pid, "SIGKILL", () => true);
  assert.throws(() => parentOf(pid));
});
