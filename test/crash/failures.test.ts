import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CreateFunctionCommand,
  DeleteFunctionCommand,
  GetFunctionCommand,
  InvokeCommand,
  LambdaServiceException,
} from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy, settled } from "../../src/cli/deploy.ts";
import { getControl, getStats } from "../../src/daemon/control.ts";
import { parseSamples } from "../../src/telemetry/prometheus-text.ts";
import { detectCgroups } from "../../src/vmm/jail/cgroup.ts";
import { invoke } from "../functional/functions.ts";
import { eventually, startHearth } from "../functional/hearth.ts";
import type { TestHearth } from "../functional/hearth.ts";
import { compile } from "../vmm/guest.ts";
import { MarkedCodes } from "./code.ts";
import type { MarkedCode } from "./code.ts";
import { allFailures, drawFailure, FailureControl } from "./failures.ts";
import type { Act, Failure } from "./failures.ts";
import { heldBy, jailsOf } from "./guest-processes.ts";
import { ownerName } from "./processes.ts";
import { Random } from "./random.ts";

/*
 * While Hearth serves, the n-th call of one libc function fails with what a host says when it has run out of something.
 * The process lives, at most the one answer concerned is an error, which says what ran out, then all is right again, and
 * nothing is left over. HEARTH_SEED repeats a run, HEARTH_FAILURES=all tries every n of every call.
 */
const ALL = process.env["HEARTH_FAILURES"] === "all";
/** Of a sample that is drawn, as far as its time allows. */
const SAMPLE = 120;
const FAILURES = Number(process.env["HEARTH_FAILURES"] ?? SAMPLE) || SAMPLE;
const SAMPLE_MS_MAX = 90_000;
/** A client waits so long for the init of a slot; then there is an answer. */
const ANSWER_MS_MAX = 60_000;
const NAME = "stays";
const MADE = "comes-and-goes";
const COMMON = { Role: "arn:aws:iam::000000000000:role/r", Runtime: "provided.al2023", Handler: "bootstrap" } as const;

interface World {
  readonly hearth: TestHearth;
  readonly client: LambdaClient;
  readonly codes: MarkedCodes;
}

let codes = 0;
const nextCode = (world: World): Promise<MarkedCode> => world.codes.make(`m${(codes += 1)}`);

const exists = async ({ client }: World): Promise<boolean> =>
  client.send(new GetFunctionCommand({ FunctionName: MADE })).then(
    () => true,
    () => false,
  );

const acts: Readonly<Record<Act, (world: World) => Promise<unknown>>> = {
  // Its function has `reuse: never`: each call has a microVM made for it.
  cold: async ({ client }) => invoke(client, NAME),
  warm: async ({ client }) => invoke(client, "warm"),
  // Of the function whose slots do not stay: one for the event beside one for the next call would.
  event: ({ client }) => client.send(new InvokeCommand({ FunctionName: NAME, InvocationType: "Event", Payload: "{}" })),
  create: async (world) => {
    const { zip } = await nextCode(world);
    await world.client.send(new CreateFunctionCommand({ FunctionName: MADE, ...COMMON, Code: { ZipFile: zip } }));
  },
  delete: ({ client }) => client.send(new DeleteFunctionCommand({ FunctionName: MADE })),
};

/** What an error of the host's must say to a client: not now, and what there is too little of. */
const assertSaysWhat = (error: unknown, { name }: Failure): void => {
  // The connection itself was not accepted, or ended.
  if (!(error instanceof LambdaServiceException)) {
    assert.equal(name === "accept" || name === "epoll_ctl" || name === "socket", true, String(error));
    return;
  }
  assert.equal(error.$metadata.httpStatusCode, 503, error.message);
};

const unowned = async ({ hearth }: World): Promise<number> =>
  parseSamples(await getControl(hearth.dataDir, "/metrics"))
    .filter(({ name }) => name === "hearth_unowned_failures_total")
    .reduce((sum, { value }) => sum + value, 0);

const groupsOf = (owner: string): string[] =>
  [...detectCgroups().parents.values()].flatMap((parent) =>
    readdirSync(parent).filter((name) => name.endsWith(`.${owner}`)),
  );

/**
 * The directory that libuv holds to have a descriptor for an accept(2) that fails for want of one (`uv__emfile_trick`):
 * it stands for `/dev/null`, once that has been given up.
 */
const LIBUV_RESERVE = "/";

/** Without slots it holds what it held before; what was to be retried has been. */
const assertNothingKept = async ({ hearth }: World, before: Readonly<Record<string, number>>): Promise<void> => {
  const more = (): string[] =>
    Object.entries(heldBy(hearth.pid)).flatMap(([kind, count]) =>
      count > (before[kind] ?? (kind === LIBUV_RESERVE ? 1 : 0)) ? [`${kind}: ${count}, not ${before[kind] ?? 0}`] : [],
    );
  await eventually("all is given back", async () => {
    const { worker } = await getStats(hearth.dataDir);
    return worker.slots <= 1 && more().length === 0 ? true : null;
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${more().join("; ")}`);
  });
};

/** Throws when there is no answer at all. */
const answered = async (act: Promise<unknown>): Promise<void> => {
  const over = new AbortController();
  const silence = sleep(ANSWER_MS_MAX, null, { signal: over.signal });
  try {
    await Promise.race([
      act,
      silence.then(
        () => assert.fail(`no answer within ${ANSWER_MS_MAX} ms`),
        () => undefined,
      ),
    ]);
  } finally {
    over.abort();
  }
};

/** Waits until an event is taken again; the test's own time limit ends the wait. */
const untilAccepted = async (world: World): Promise<void> => {
  for (;;) {
    try {
      return void (await acts.event(world));
    } catch (error) {
      if (!(error instanceof LambdaServiceException) || error.$metadata.httpStatusCode !== 503) throw error;
    }
  }
};

const tryOne = async (
  world: World,
  control: FailureControl,
  act: Act,
  failure: Failure,
  before: Readonly<Record<string, number>>,
): Promise<boolean> => {
  const { hearth, client } = world;
  if (act === "delete" && !(await exists(world))) await acts.create(world);
  if (act === "create" && (await exists(world))) await acts.delete(world);
  if (act === "delete") await settled(client, MADE);
  control.arm(failure);
  let thrown: unknown = null;
  try {
    // A client of its own has a connection of its own, which must be accepted.
    await answered(acts[act]({ ...world, client: hearth.client() }));
  } catch (error) {
    thrown = error;
  }
  const hit = control.disarm();
  assert.ok(hearth.isRunning, "the process lives");
  if (thrown !== null) {
    assert.ok(hit, `nothing failed, but the act did`);
    assertSaysWhat(thrown, failure);
  }
  // Then all is right. After a disk without space nothing new is accepted until the next look finds room.
  if (failure.error === "ENOSPC") await untilAccepted(world);
  const [fresh, warm] = await Promise.all([invoke(client, NAME), invoke(client, "warm")]);
  assert.deepEqual([fresh.error, warm.error], [undefined, undefined]);
  await assertNothingKept(world, before);
  return hit;
};

function* failures(random: Random): Generator<readonly [Act, Failure]> {
  if (ALL) yield* allFailures;
  else for (let n = 0; n < FAILURES; n += 1) yield drawFailure(random);
}

test("a call that fails while Hearth serves costs one answer at most, and nothing stays of it", async (t) => {
  const random = new Random();
  t.diagnostic(`HEARTH_SEED=${random.seed}`);
  const directory = mkdtempSync(join(tmpdir(), "hearth-fail-"));
  try {
    const preload = join(directory, "fail-at.so");
    compile(new URL("fail-at.c", import.meta.url).pathname, preload, ["-shared", "-fPIC"]);
    using control = new FailureControl(join(directory, "control"));
    await using hearth = await startHearth("--pool", "0");
    await hearth.stop();
    await hearth.start({ HEARTH_FAIL_CONTROL: control.path, LD_PRELOAD: preload });
    const client = hearth.client();
    const marked = new MarkedCodes();
    const code = await marked.make("m");
    const world: World = { hearth, client, codes: marked };
    const common = { zip: code.zip, runtime: COMMON.Runtime, handler: COMMON.Handler, timeoutS: 10 };
    await deploy(client, { ...common, name: NAME, reuse: "never" });
    await deploy(client, { ...common, name: "warm" });
    await Promise.all([invoke(client, NAME), invoke(client, "warm")]);
    await eventually("only the warm slot is left", async () => (jailsOf(hearth.pid).length === 1 ? true : null));
    const before = heldBy(hearth.pid);
    const until = Date.now() + SAMPLE_MS_MAX;
    const tally = { tried: 0, failed: 0 };
    for (const [act, failure] of failures(random)) {
      if (!ALL && Date.now() > until) break;
      tally.tried += 1;
      try {
        if (await tryOne(world, control, act, failure, before)) tally.failed += 1;
      } catch (error) {
        const what = `HEARTH_SEED=${random.seed}: ${act}, ${failure.name} number ${failure.number}: ${failure.error}`;
        throw new Error(`${what}:\n${hearth.log.slice(-6_000)}`, { cause: error });
      }
    }
    t.diagnostic(JSON.stringify(tally));
    assert.ok(tally.failed > tally.tried / 5, JSON.stringify(tally));
    assert.equal(await unowned(world), 0, "every failure had an owner");
    const owner = ownerName(hearth.pid);
    await hearth.stop();
    assert.deepEqual(groupsOf(owner), []);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
