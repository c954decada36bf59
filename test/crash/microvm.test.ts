import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { getStats } from "../../src/daemon/control.ts";
import { invoke } from "../functional/functions.ts";
import type { Answer } from "../functional/functions.ts";
import { eventually, startHearth } from "../functional/hearth.ts";
import type { TestHearth } from "../functional/hearth.ts";
import { MarkedCodes } from "./code.ts";
import { heldBy, jailsOf, onlyGuest } from "./guest-processes.ts";
import type { GuestProcesses } from "./guest-processes.ts";

const NAME = "f";
const MARK = "still here";
const TIMEOUT_S = 2;
/** Longer than the test takes to hit the microVM, and shorter than the function's time limit. */
const WORK_MS = 1_000;

let hearth: TestHearth;
let client: LambdaClient;
let idle: Readonly<Record<string, number>>;

const busy = (): Promise<true> =>
  eventually("the invocation runs", async () =>
    (await hearth.slots()).some((slot) => slot.state === "Busy") ? true : null,
  );

/** Without a slot nothing is held but what a Hearth without microVMs holds. */
const nothingHeld = async (): Promise<void> => {
  await eventually("the slot is gone", async () => ((await getStats(hearth.dataDir)).worker.slots === 0 ? true : null));
  await eventually("all that the microVM held is given back", async () => {
    const now = heldBy(hearth.pid);
    return Object.keys({ ...idle, ...now }).every((kind) => (now[kind] ?? 0) <= (idle[kind] ?? 0)) ? true : null;
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify(heldBy(hearth.pid))}, not ${JSON.stringify(idle)}`);
  });
};

const works = async (): Promise<void> => {
  const answer = await invoke(client, NAME);
  assert.deepEqual([answer.error, answer.value], [undefined, MARK]);
};

/** Hits a process of the microVM in the midst of an invocation; what its caller gets. */
const hitWhileBusy = async (choose: (guest: GuestProcesses) => number, signal: NodeJS.Signals): Promise<Answer> => {
  const running = invoke(client, NAME, { ms: WORK_MS });
  await Promise.race([busy(), running]);
  process.kill(choose(onlyGuest(hearth.pid)), signal);
  return running;
};

const firstJail = async (): Promise<number> => {
  for (;;) {
    const [jail] = jailsOf(hearth.pid);
    if (jail !== undefined) return jail;
    await sleep(1);
  }
};

/** The invocation had another microVM; or it was begun already, and so may not be begun again. */
const endsWell = async (running: Promise<Answer>): Promise<void> => {
  const outcome = await running.then(
    ({ value }) => value,
    (error: Error) => error.message,
  );
  if (outcome !== MARK) assert.match(String(outcome), /^The microVM ended before the invocation did: /);
};

describe("a microVM that is hit from outside", () => {
  before(async () => {
    hearth = await startHearth("--pool", "0");
    client = hearth.client();
    const { zip } = await new MarkedCodes().make(MARK);
    await deploy(client, { name: NAME, zip, runtime: "provided.al2023", handler: "bootstrap", timeoutS: TIMEOUT_S });
    idle = heldBy(hearth.pid);
  });
  after(() => hearth[Symbol.asyncDispose]());

  const deaths: readonly (readonly [what: string, choose: (guest: GuestProcesses) => number, why: RegExp])[] = [
    ["its kernel", ({ kernel }) => kernel, /SIGKILL/],
    ["its jail", ({ jail }) => jail, /SIGKILL/],
    ["its guest's first process, so that the guest's kernel panics", ({ init }) => init, /ended|died|powered off/],
  ];
  for (const [what, choose, why] of deaths) {
    test(`SIGKILL of ${what}: the caller hears of it, nothing stays, the next call works`, async () => {
      await assert.rejects(hitWhileBusy(choose, "SIGKILL"), (error: Error & { readonly $metadata?: object }) => {
        assert.equal(error.name, "ServiceException");
        assert.match(error.message, /^The microVM ended before the invocation did: /);
        assert.match(error.message, why);
        return true;
      });
      await nothingHeld();
      const lines = (await hearth.logOf(NAME)).slice(-2);
      assert.match(lines[0] ?? "", /^END RequestId: /);
      assert.match(lines[1] ?? "", /^REPORT RequestId: .*\tStatus: error\tError Type: Sandbox\.Failure/);
      await works();
    });
  }

  test("SIGSTOP of its kernel: a timeout for the caller, and the next call works", async () => {
    const answer = await hitWhileBusy(({ kernel }) => kernel, "SIGSTOP");
    const { errorType, errorMessage } = answer.value as { readonly errorType: string; readonly errorMessage: string };
    assert.equal(errorType, "Sandbox.Timedout");
    assert.match(errorMessage, /^RequestId: \S+ Error: Task timed out after 2\.00 seconds$/);
    await nothingHeld();
    await works();
  });

  test("killed while it is idle: the next call has another one, and hears of nothing", async () => {
    // Frozen after 100 ms.
    for (const pauseMs of [0, 200]) {
      await works();
      await sleep(pauseMs);
      process.kill(onlyGuest(hearth.pid).kernel, "SIGKILL");
      await nothingHeld();
      await works();
    }
  });

  test("killed as it is woken: the call has another one, or hears of it at once", async () => {
    for (const pauseMs of [0, 200, 200, 200]) {
      await works();
      await sleep(pauseMs);
      process.kill(onlyGuest(hearth.pid).kernel, "SIGKILL");
      const startedMs = performance.now();
      await endsWell(invoke(client, NAME));
      assert.ok(performance.now() - startedMs < TIMEOUT_S * 1000, "nobody waited for a time limit");
    }
  });

  test("killed while it comes up: the call has another one", async () => {
    await deploy(client, { ...(await fresh()), reuse: "never" });
    for (const jail of jailsOf(hearth.pid)) process.kill(jail, "SIGKILL");
    await nothingHeld();
    for (const afterMs of [0, 5, 15, 30]) {
      const running = invoke(client, "fresh");
      const jail = await firstJail();
      await sleep(afterMs);
      try {
        process.kill(jail, "SIGKILL");
      } catch {
        // It has served already.
      }
      await endsWell(running);
      await nothingHeld();
    }
  });

  test("an event runs again after a moment, and is not lost", async () => {
    const Payload = JSON.stringify({ mark: "event", ms: WORK_MS });
    await client.send(new InvokeCommand({ FunctionName: NAME, InvocationType: "Event", Payload }));
    await busy();
    process.kill(onlyGuest(hearth.pid).kernel, "SIGKILL");
    await eventually("it runs a second time, to its end", async () => {
      const lines = await hearth.logOf(NAME);
      const runs = lines.flatMap((line, at) => (/^run .*"event"/.test(line) ? [at] : []));
      const ended = lines.slice(runs[1]).some((line) => line.startsWith("REPORT") && !line.includes("Status:"));
      return runs.length === 2 && ended ? true : null;
    });
  });
});

const fresh = async () => ({
  name: "fresh",
  zip: (await new MarkedCodes().make(MARK)).zip,
  runtime: "provided.al2023",
  handler: "bootstrap",
});
