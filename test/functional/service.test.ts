import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { native } from "../../src/vmm/native.ts";
import { quoted } from "../../src/daemon/unit.ts";
import { deployProbe, invoke } from "./functions.ts";
import { eventually, MAIN, run, startHearthBy } from "./hearth.ts";

/* The unit, judged by systemd's own tools; systemd itself does not run where tests do. */

const ANALYZE = "/usr/bin/systemd-analyze";
/** "Overall exposure level" of systemd-analyze security, 0 to 10: what makes microVMs as root cannot come much lower. */
const EXPOSURE_MAX = 5.2;

const temporary = async (): Promise<{ readonly path: string } & AsyncDisposable> => {
  const path = await mkdtemp(join(tmpdir(), "hearth-service-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

const service = (directory: string, ...args: readonly string[]): ReturnType<typeof run> =>
  run(process.execPath, [MAIN, "service", ...args], { env: { PATH: "/usr/bin:/bin", HOME: directory } });

const install = (directory: string, ...more: readonly string[]): ReturnType<typeof run> =>
  service(directory, "install", "--no-start", "--unit-dir", directory, "--data-dir", join(directory, "data"), ...more);

test("the unit passes systemd's checks, and comes and goes", async (context) => {
  await using directory = await temporary();
  const file = join(directory.path, "hearth.service");
  const made = await install(directory.path, "--", "--drain", "120", "--region", "eu-west-1");
  assert.equal(made.code, 0, made.stderr);
  const text = await readFile(file, "utf8");
  assert.match(text, /^ExecStart="\S+" "\S+main\.ts" "up" .* "--drain" "120" "--region" "eu-west-1"$/m);
  assert.match(text, /^TimeoutStopSec=150$/m);
  assert.equal((await stat(file)).mode & 0o777, 0o644);
  assert.match((await install(directory.path, "--", "--drain", "120", "--region", "eu-west-1")).stdout, /^Kept /);
  const print = await service(directory.path, "install", "--print");
  assert.match(print.stdout, /^\[Service\]$/m);
  if (existsSync(ANALYZE)) {
    await promisify(execFile)(ANALYZE, ["verify", "--man=no", file]);
    const options = ["security", "--offline=true", `--threshold=${EXPOSURE_MAX * 10}`, "--no-pager", file];
    const { stdout } = await promisify(execFile)(ANALYZE, options);
    assert.match(stdout, /Overall exposure level for hearth\.service: (?:[0-4]\.\d|5\.[01])/, stdout.slice(-200));
  }
  const removed = await service(directory.path, "remove", "--unit-dir", directory.path);
  assert.equal(removed.code, 0, removed.stderr);
  assert.ok(!existsSync(file));
  assert.ok(existsSync(join(directory.path, "data")), "data stay");
  if (!existsSync(ANALYZE)) context.skip("systemd-analyze is not installed");
});

test("options that `hearth up` would refuse, or that a service cannot have, are refused before anything is written", async () => {
  await using directory = await temporary();
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [["--nonsense"], /unknown option '--nonsense'/],
    [["--drain", "-1"], /whole number/],
    [["--tls-cert", "cert.pem", "--tls-key", "/k"], /cert\.pem/],
    [["--data-dir", "/x"], /before the --/],
  ];
  for (const [args, text] of cases) {
    const refused = await install(directory.path, "--", ...args);
    assert.deepEqual([refused.code, text.test(refused.stderr)], [2, true], refused.stderr);
  }
  assert.ok(!existsSync(join(directory.path, "hearth.service")));
  assert.equal((await service(directory.path, "remove", "--unit-dir", directory.path)).code, 1);
  assert.equal(quoted('a "b" 100% $HOME \\'), '"a \\"b\\" 100%% $$HOME \\\\"');
});

test("the service manager is told that Hearth serves, that its loop turns, and that it ends", async () => {
  await using directory = await temporary();
  const socket = join(directory.path, "notify");
  const descriptor = native().bindDatagram(socket);
  assert.ok(descriptor >= 0);
  const told: string[] = [];
  const hear = (): void => {
    const bytes = new Uint8Array(4_096);
    for (;;) {
      const length = native().receive(descriptor, bytes, new Int32Array(9));
      if (length <= 0) return;
      told.push(Buffer.from(bytes.subarray(0, length)).toString());
    }
  };
  const heard = (pattern: RegExp): Promise<true> =>
    eventually(`${pattern} is told`, async () => {
      hear();
      return told.some((text) => pattern.test(text)) ? true : null;
    });
  try {
    // As systemd starts it: WATCHDOG_PID is the process itself, which a shell knows before it becomes it.
    await using hearth = await startHearthBy([
      "/bin/sh",
      "-c",
      `umask 077; NOTIFY_SOCKET=${socket} WATCHDOG_USEC=900000 WATCHDOG_PID=$$ exec "$0" "$@"`,
    ]);
    await heard(/^READY=1\nSTATUS=Serves .*$/);
    await heard(/^WATCHDOG=1$/);
    // Whatever the umask that it was started with, microVMs get at what they need, and others at nothing.
    await deployProbe(hearth.client(), "probe", { timeoutS: 60 });
    assert.equal((await invoke(hearth.client(), "probe")).error, undefined);
    for (const name of ["credentials", "hearth.db", "control.sock", "logs", "code"]) {
      assert.equal((await stat(join(hearth.dataDir, name))).mode & 0o077, 0, `${name} is open to others`);
    }
    assert.equal(await hearth.stop(), 0);
    await heard(/^STOPPING=1/);
    assert.match(told[0] ?? "", /^READY=1/, "nothing is told before it serves");
  } finally {
    native().close(descriptor);
  }
});
