import assert from "node:assert/strict";
import { after, test } from "node:test";
import { getControl } from "../../src/daemon/control.ts";
import { deploy } from "../../src/cli/deploy.ts";
import type { Deployment } from "../../src/cli/deploy.ts";
import { compiledBootstrap, deployProbe, invoke, zipOf } from "./functions.ts";
import type { Answer } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";
import type { TestHearth } from "./hearth.ts";

// A function must not be able to tell a runtime that waited for it from one that was started for it.
const pooled = await startHearth();
const fresh = await startHearth("--pool", "0");
after(() => Promise.all([pooled[Symbol.asyncDispose](), fresh[Symbol.asyncDispose]()]));

const MB = 256;

const metric = async (hearth: TestHearth, pattern: RegExp): Promise<number> =>
  Number(pattern.exec(await getControl(hearth.dataDir, "/metrics"))?.[1] ?? 0);

const preparedHits = (): Promise<number> => metric(pooled, /hearth_pool_total\{result="hit",kind="prepared"\} (\d+)/);

/** Deploys a function that is used once for each microVM. */
const deployOnce = async (hearth: TestHearth, wanted: Omit<Deployment, "memoryMb" | "reuse">): Promise<void> =>
  void (await deploy(hearth.client(), { timeoutS: 20, ...wanted, memoryMb: MB, reuse: "never" }));

/** Invokes until a prepared runtime was there to be taken: the first calls make the pool prepare some. */
const invokePrepared = async (name: string, event: unknown = {}): Promise<Answer> =>
  eventually(`a prepared runtime for ${name}`, async () => {
    const before = await preparedHits();
    const answer = await invoke(pooled.client(), name, event);
    return (await preparedHits()) > before ? answer : null;
  });

const NODE = `
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { createRequire, globalPaths } from "node:module";
import v8 from "node:v8";
const own = (line) => !/LOG_STREAM|TRACE_ID/.test(line);
const mount = (line) => line.split(" ").slice(3).join(" ").replace(/(shared|master):\\d+/g, "$1").replace(/ubd\\w|size=\\d+k/g, "");
export const handler = async (event) => ({
  environment: Object.entries(process.env).map((pair) => pair.join("=")).filter(own),
  ofChild: execFileSync("/usr/bin/env").toString().split("\\n").filter(own),
  places: [process.cwd(), process.argv, process.execArgv, process.execPath, process.title, import.meta.url],
  time: [new Date(0).toString(), new Date(0).getHours(), Intl.DateTimeFormat().resolvedOptions()],
  language: [(1234.5).toLocaleString(), ["z", "ä"].sort(new Intl.Collator().compare)],
  who: [process.umask(), process.getuid(), process.getgroups(), process.ppid],
  status: fs.readFileSync("/proc/self/status", "utf8").match(/^(Cap|Seccomp|NoNewPrivs|Sig(Blk|Ign|Cgt)|Uid|Gid).*$/gm),
  limits: fs.readFileSync("/proc/self/limits", "utf8"),
  mounts: fs.readFileSync("/proc/self/mountinfo", "utf8").trim().split("\\n").map(mount).sort(),
  heap: v8.getHeapStatistics().heap_size_limit,
  globals: Object.getOwnPropertyNames(globalThis).sort(),
  listeners: process.eventNames().map((name) => [String(name), process.listenerCount(name)]),
  modules: [Object.keys(createRequire(import.meta.url).cache), globalPaths],
  outputs: [0, 1, 2].map((fd) => fs.readlinkSync("/proc/self/fd/" + fd).replace(/\\d+/, "")),
  tmp: [fs.readdirSync("/tmp"), fs.statfsSync("/tmp").blocks, (fs.statSync("/tmp").mode & 0o7777).toString(8)],
});`;

const PYTHON = `
import locale, os, re, resource, subprocess, sys, time
def handler(event, context):
    own = lambda line: not re.search("LOG_STREAM|TRACE_ID", line)
    mount = lambda line: re.sub(r"ubd\\w|size=\\d+k", "", re.sub(r"(shared|master):\\d+", r"\\1", " ".join(line.split()[3:])))
    return {
        "environment": [f"{k}={v}" for k, v in os.environ.items() if own(k)],
        "ofChild": [line for line in subprocess.check_output(["/usr/bin/env"], text=True).splitlines() if own(line)],
        "places": [os.getcwd(), sys.argv, sys.orig_argv, sys.executable, sys.path, sys.prefix],
        "flags": [repr(sys.flags), sys.getfilesystemencoding(), locale.getpreferredencoding(), sys.stdout.encoding],
        "time": [time.tzname, time.timezone, time.strftime("%H %Z", time.localtime(0))],
        "who": [os.umask(0o22), os.getuid(), os.getgroups(), os.getppid()],
        "status": re.findall(r"(?m)^(?:Cap|Seccomp|NoNewPrivs|Sig(?:Blk|Ign|Cgt)).*$", open("/proc/self/status").read()),
        "limits": [resource.getrlimit(n) for n in range(16)],
        "mounts": sorted(mount(line) for line in open("/proc/self/mountinfo")),
        "main": [sys.modules["__main__"].__file__, [type(f).__name__ for f in sys.meta_path if not isinstance(f, type)]],
        "tmp": [os.listdir("/tmp"), oct(os.stat("/tmp").st_mode)],
    }
`;

/** A log without its times, identifiers and figures. */
const shape = ({ log }: Answer): string =>
  log.replaceAll(/[\da-f]{8}-[\da-f-]{27}/g, "ID").replaceAll(/[\d.:TZ-]*\d[\w.:-]*/g, "#");
const memoryUsed = (answer: Answer): number => Number(/Max Memory Used: (\d+) MB/.exec(answer.log)?.[1]);
const initMs = (answer: Answer): number => Number(/Init Duration: ([\d.]+) ms/.exec(answer.log)?.[1]);

for (const { runtime, name, files, handler } of [
  { runtime: "nodejs24.x", name: "node-24", files: { "index.mjs": NODE }, handler: "index.handler" },
  { runtime: "nodejs22.x", name: "node-22", files: { "index.mjs": NODE }, handler: "index.handler" },
  { runtime: "python3.11", name: "python", files: { "app.py": PYTHON }, handler: "app.handler" },
] as const) {
  test(`${runtime}: the function finds the same world`, async () => {
    const environment = { TZ: "Asia/Tokyo", SIZE: "größe", EQUAL: "a=b c", EMPTY: "" };
    const wanted = { name, zip: await zipOf(files), runtime, handler, environment };
    await deployOnce(fresh, wanted);
    await deployOnce(pooled, wanted);
    const expected = await invoke(fresh.client(), name);
    const actual = await invokePrepared(name);
    assert.equal(expected.error, undefined, JSON.stringify(expected.value));
    assert.deepEqual(actual.value, expected.value);
    const apart = memoryUsed(actual) - memoryUsed(expected);
    assert.ok(Math.abs(apart) <= 8, `${memoryUsed(actual)} MB, not ${memoryUsed(expected)} MB`);
    assert.ok(initMs(actual) > 0);
  });
}

test("variables that a runtime reads as it starts get it started anew", async () => {
  const code = `exports.handler = async () => ({ heap: require("v8").getHeapStatistics().heap_size_limit / 2 ** 20,
    options: process.env.NODE_OPTIONS, locale: Intl.DateTimeFormat().resolvedOptions().locale });`;
  const zip = await zipOf({ "index.js": code });
  const environment = { NODE_OPTIONS: "--max-old-space-size=99", LANG: "de_DE.UTF-8" };
  await deployOnce(pooled, { name: "options", zip, runtime: "nodejs24.x", handler: "index.handler", environment });
  const { heap, ...rest } = (await invoke(pooled.client(), "options")).value as { heap: number };
  assert.ok(heap >= 99 && heap < 120, `${heap} MB`);
  assert.deepEqual(rest, { options: "--max-old-space-size=99", locale: "de-DE" });
  const python = await zipOf({ "app.py": "import sys\ndef handler(e, c):\n    return sys.flags.optimize\n" });
  const optimized = { PYTHONOPTIMIZE: "2" };
  const settings = { runtime: "python3.11", handler: "app.handler", environment: optimized };
  await deployOnce(pooled, { name: "flags", zip: python, ...settings });
  assert.equal((await invoke(pooled.client(), "flags")).value, 2);
});

test("a function's module that is named like one that Python has loaded already wins", async () => {
  const zip = await zipOf({
    "textwrap.py": "MINE = 'mine'\ndedent = indent = None\n",
    "app.py": "import textwrap\ndef handler(e, c):\n    return textwrap.MINE\n",
  });
  await deployOnce(pooled, { name: "shadows", zip, runtime: "python3.11", handler: "app.handler" });
  assert.equal((await invokePrepared("shadows")).value, "mine");
});

test("an init that fails, in a runtime that waited, fails as ever", async () => {
  const zip = await zipOf({ "index.js": "console.log('loading'); throw new RangeError('at load');" });
  const wanted = { name: "broken", zip, runtime: "nodejs24.x", handler: "index.handler" };
  await deployOnce(fresh, wanted);
  await deployOnce(pooled, wanted);
  const expected = await invoke(fresh.client(), "broken");
  const actual = await invokePrepared("broken");
  assert.equal(actual.error, "Unhandled");
  assert.deepEqual(actual.value, expected.value);
  assert.equal((actual.value as { errorType: string }).errorType, "RangeError");
  assert.equal(shape(actual), shape(expected));
});

test("a runtime that waited and crashes is started anew, with its environment and /tmp", async () => {
  const client = pooled.client();
  const before = await eventually("a runtime that waited", async () => {
    // What is deployed anew begins in a new microVM.
    await deployProbe(client, "crashes", { memoryMb: MB, environment: { MINE: "kept" } });
    const hits = await preparedHits();
    const { value } = await invoke(client, "crashes");
    return (await preparedHits()) > hits ? (value as { instance: string }) : null;
  });
  assert.equal((await invoke(client, "crashes", { op: "world" })).error, undefined);
  const exit = (await invoke(client, "crashes", { op: "exit", code: 7 })).value as { errorType: string };
  assert.equal(exit.errorType, "Runtime.ExitError");
  const environment = (await invoke(client, "crashes", { op: "env" })).value as Record<string, string>;
  assert.equal(environment["MINE"], "kept");
  assert.equal(environment["HEARTH_PREPARED"], undefined);
  assert.notEqual(((await invoke(client, "crashes")).value as { instance: string }).instance, before.instance);
});

test("memory runs out where it should", async () => {
  await deployProbe(pooled.client(), "eats", { memoryMb: MB, reuse: "never" });
  const { value, log } = await invokePrepared("eats", { op: "memory" });
  assert.match((value as { errorType: string }).errorType, /^Runtime\.(?:OutOfMemory|ExitError)$/);
  assert.match(log, new RegExp(`Max Memory Used: ${MB} MB`));
});

test("a bootstrap of the function's own is never started ahead", async () => {
  const zip = await zipOf({ bootstrap: await compiledBootstrap() });
  await deployOnce(pooled, { name: "native", zip, runtime: "provided.al2023", handler: "bootstrap" });
  const before = await preparedHits();
  for (let call = 0; call < 3; call += 1) await invoke(pooled.client(), "native");
  assert.equal(await preparedHits(), before);
});
