import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "../functional/functions.ts";
import { startHearth, type TestHearth } from "../functional/hearth.ts";
import { compile } from "../vmm/guest.ts";

/* As a function: an unprivileged user in its guest, by a native program and by Node. */

const NODE = `
import { execFileSync } from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import net from "node:net";
const attempt = (action) => { try { action(); return "done"; } catch (error) { return error.code ?? error.message; } };
const asked = (start) => new Promise((resolve) => start(resolve));
const ops = {
  native: ({ args }) => execFileSync("/var/task/attacks", args).toString().trim().split("\\n"),
  node: async () => ({
    hostFile: attempt(() => fs.readFileSync("/etc/shadow")),
    otherProcess: attempt(() => fs.readFileSync("/proc/1/environ")),
    signal: attempt(() => process.kill(1, "SIGKILL")),
    user: attempt(() => process.setuid(0)),
    code: attempt(() => fs.writeFileSync("/var/task/index.mjs", "")),
    runtime: attempt(() => fs.writeFileSync("/var/runtime/index.cjs", "")),
    disk: attempt(() => fs.openSync("/dev/ubda", "r")),
    server: await asked((resolve) => net.connect("/run/hearth.sock").once("error", ({ code }) => resolve(code))),
  }),
  keep: ({ text }) => { fs.writeFileSync("/tmp/secret", text); globalThis.secret = text; return fs.readdirSync("/tmp"); },
  look: () => ({ files: fs.readdirSync("/tmp"), processes: fs.readdirSync("/proc").filter((name) => /^\\d+$/.test(name)).length,
    shared: fs.readdirSync("/dev/shm"), memory: globalThis.secret ?? null }),
};
export const handler = (event) => ops[event.op](event);
`;

let hearth: TestHearth;
let client: LambdaClient;

before(async () => {
  const directory = await mkdtemp(join(tmpdir(), "hearth-attacks-"));
  try {
    const attacks = join(directory, "attacks");
    compile(new URL("function-attacks.c", import.meta.url).pathname, attacks, ["-static", "-std=gnu17"]);
    const zip = await zipOf({ "index.mjs": NODE, attacks: readFileSync(attacks) });
    hearth = await startHearth("--network", "none");
    client = hearth.client();
    for (const name of ["attacker", "neighbour"])
      await deploy(client, { name, zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256, timeoutS: 20 });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

after(() => hearth?.[Symbol.asyncDispose]());

const EXPECTED: Readonly<Record<string, RegExp>> = {
  "read:/etc/shadow": /^ENOENT$/,
  "read:/proc/1/environ": /^(ENOENT|EACCES)$/,
  "read:/proc/1/mem": /^(ENOENT|EACCES)$/,
  "list:/proc/1/fd": /^(ENOENT|EACCES)$/,
  "list:/proc/1/root": /^(ENOENT|EACCES)$/,
  "read:/proc/kcore": /^(ENOENT|EACCES|ENODATA)$/,
  "read:/proc/kmsg": /^(EACCES|ENODATA)$/,
  "read:/dev/mem": /^ENOENT$/,
  "read:/dev/ubda": /^(ENOENT|EACCES)$/,
  "read:/dev/vsock": /^ENOENT$/,
  "write:/proc/exitcode": /^EACCES$/,
  "write:/proc/sys/user/max_user_namespaces": /^(EACCES|EROFS)$/,
  "write:/proc/sysrq-trigger": /^(ENOENT|EACCES)$/,
  "write:/proc/1/oom_score_adj": /^(ENOENT|EACCES)$/,
  "create:/var/task/x": /^EROFS$/,
  "create:/opt/x": /^EROFS$/,
  "create:/var/runtime/x": /^EROFS$/,
  "create:/x": /^EROFS$/,
  "write:/etc/passwd": /^EROFS$/,
  "create:/sys/fs/cgroup/x": /^(ENOENT|EACCES|EROFS)$/,
  device: /^EPERM$/,
  "kill:1": /^EPERM$/,
  "trace:1": /^EPERM$/,
  "mount:tmpfs": /^EPERM$/,
  "mount:hostfs": /^EPERM$/,
  "unmount:/var/task": /^EPERM$/,
  "unshare:268435456": /^(ENOSPC|EPERM)$/, // CLONE_NEWUSER
  "unshare:131072": /^EPERM$/, // CLONE_NEWNS
  "socket:40": /^EAFNOSUPPORT$/, // AF_VSOCK: the shim's way to the host
  "raw-socket:17": /^EPERM$/, // AF_PACKET
  root: /^EPERM$/,
  groups: /^EPERM$/,
  chroot: /^EPERM$/,
  reboot: /^EPERM$/,
  name: /^EPERM$/,
  clock: /^EPERM$/,
  module: /^(ENOSYS|EPERM)$/,
  kexec: /^(ENOSYS|EPERM)$/,
  bpf: /^(ENOSYS|EPERM)$/,
  "io-uring": /^(ENOSYS|EPERM)$/,
  perf: /^(ENOSYS|EPERM|EACCES)$/,
  keys: /^(ENOSYS|EPERM)$/,
  ports: /^(ENOSYS|EPERM)$/,
  priority: /^(EACCES|EPERM)$/,
};

test("a native program finds no way out of the function's place", async () => {
  const args = [...Object.keys(EXPECTED), "create:/tmp/x", "socket:2"];
  const answers = (await invoke(client, "attacker", { op: "native", args })).value as string[];
  for (const [i, [name, expected]] of Object.entries(EXPECTED).entries())
    assert.match(answers[i] ?? "", expected, name);
  // What it may do it can.
  assert.deepEqual(answers.slice(-2), ["done", "done"]);
});

test("nor does Node", async () => {
  const { value } = await invoke(client, "attacker", { op: "node" });
  assert.deepEqual(value, {
    hostFile: "ENOENT",
    otherProcess: "ENOENT",
    signal: "EPERM",
    user: "EPERM",
    code: "EROFS",
    runtime: "EROFS",
    disk: "ENOENT",
    server: "ENOENT",
  });
});

test("nothing of one function is seen by another, nor of the host by either", async () => {
  assert.deepEqual((await invoke(client, "neighbour", { op: "keep", text: "secret" })).value, ["secret"]);
  const { value } = await invoke(client, "attacker", { op: "look" });
  const { files, shared, memory, processes } = value as Record<string, unknown>;
  assert.deepEqual([shared, memory], [[], null]);
  assert.ok(!(files as string[]).includes("secret"));
  assert.ok(Number(processes) < 5, String(processes));
});
