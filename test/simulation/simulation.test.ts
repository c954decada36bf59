import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import type { Clock } from "../../src/lib/clock.ts";
import type { Store } from "../../src/store/store.ts";
import { throttled } from "../../src/wire/errors.ts";
import type { WorkerManagerApi, WorkerSlotApi } from "../../src/wire/roles.ts";
import type { Sabotage } from "./hearth-process.ts";
import type { Failure } from "./seeds.ts";
import { simulate } from "./world.ts";

const SEEDS = fileURLToPath(new URL("seeds.ts", import.meta.url));
const FIRST = Number(process.env["HEARTH_SIMULATION_SEED"] ?? 1);
const COUNT = Number(process.env["HEARTH_SIMULATION_SEEDS"] ?? 1_000);
const SECONDS = Number(process.env["HEARTH_SIMULATION_SECONDS"] ?? 150);
/** The invariants find a broken Hearth within so many seeds, or they are worth nothing. */
const CONTROL_SEEDS = 60;
const FAILURES_TOLD = 3;

/** Every `step`-th seed from `first` on, in a process of its own. */
const runSeeds = (first: number, step: number): Promise<{ run: number; failures: Failure[] }> =>
  readSeeds([SEEDS, ...[first, step, Math.ceil(COUNT / step), SECONDS].map(String)]);

/** What a process tells that runs seeds. One that ends before it is through has told a failure. */
const readSeeds = async (args: readonly string[]): Promise<{ run: number; failures: Failure[] }> => {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const failures: Failure[] = [];
  let run = 0;
  for await (const line of createInterface(child.stdout)) {
    const told = JSON.parse(line) as Failure | { readonly run: number };
    if ("run" in told) run = told.run;
    else failures.push(told);
  }
  if (run === 0 && failures.length === 0) throw new Error(`node ${args.join(" ")} ended before it was through`);
  return { run, failures };
};

const textOf = ({ seed, violations, log }: Failure): string =>
  [
    `seed ${seed}: ${violations.join("; ")}`,
    ...log.map((line) => `  ${line}`),
    `again, with its whole log: node test/simulation/seeds.ts ${seed} --log`,
  ].join("\n");

test("whatever happens on one machine, nothing is lost, nobody is cut off, and all of it ends", async (context) => {
  const processes = Math.min(COUNT, availableParallelism());
  const parts = await Promise.all(Array.from({ length: processes }, (_, at) => runSeeds(FIRST + at, processes)));
  const failures = parts.flatMap((part) => part.failures);
  context.diagnostic(`${parts.reduce((sum, { run }) => sum + run, 0)} seeds`);
  assert.equal(failures.length, 0, failures.slice(0, FAILURES_TOLD).map(textOf).join("\n\n"));
  assert.ok(parts.every(({ run }) => run > 0));
});

/** A clock whose monotonic readings are of the wall clock. */
const onWallTime = (clock: Clock): Clock => ({
  wallMs: () => clock.wallMs(),
  monotonicMs: () => clock.wallMs(),
  after: (delayMs, callback) => clock.after(delayMs, callback),
  every: (periodMs, callback) => clock.every(periodMs, callback),
  soon: (callback) => clock.soon(callback),
  sleep: (delayMs, signal) => clock.sleep(delayMs, signal),
});

/** A member of an object, as that object would be asked. */
const bound = (of: object, name: string | symbol): unknown => {
  const member: unknown = Reflect.get(of, name, of);
  return typeof member === "function" ? (member.bind(of) as unknown) : member;
};

const passed = (manager: WorkerManagerApi): WorkerManagerApi => ({
  reserve: (request) => manager.reserve(request),
  release: (leaseId, outcome) => manager.release(leaseId, outcome),
  retire: (arn, except) => manager.retire(arn, except),
  concurrency: () => manager.concurrency(),
  onFreed: (listener) => manager.onFreed(listener),
});

const SABOTAGES: readonly (readonly [what: string, expected: RegExp, sabotage: Sabotage])[] = [
  [
    "a queue that forgets an event in ten",
    /^event \d+ was accepted, began 0 times/,
    {
      store: (store) =>
        new Proxy(store, {
          get: (target, name, receiver) =>
            name === "enqueue"
              ? (event: { readonly eventId: string }) =>
                  event.eventId.endsWith("7") ? Promise.resolve() : target.enqueue(event as never)
              : (Reflect.get(target, name, receiver) as unknown),
        }),
    },
  ],
  [
    "a queue that runs events twice",
    /^\d+ began \d times, \d may be$/,
    {
      store: (store) =>
        new Proxy(store, {
          get: (target, name, receiver) =>
            name === "settle" ? () => Promise.resolve() : (Reflect.get(target, name, receiver) as unknown),
        }),
    },
  ],
  [
    "a manager that loses a release in ten",
    /leases are left over$/,
    {
      manager: (manager) => ({
        ...passed(manager),
        release: (leaseId, outcome) => (leaseId.endsWith("7") ? Promise.resolve() : manager.release(leaseId, outcome)),
      }),
    },
  ],
  [
    "starts in the order in which they were asked for",
    /^\d+ of quiet\d waited for \d+ ms$/,
    {
      worker: (worker) => {
        let last: Promise<unknown> = Promise.resolve();
        return new Proxy(worker, {
          get: (target, name) => {
            if (name !== "createSlot") return bound(target, name);
            return (request: Parameters<WorkerSlotApi["createSlot"]>[0]) => {
              const made = last.then(() => target.createSlot(request));
              last = made.catch(() => {});
              return made;
            };
          },
        });
      },
    },
  ],
  [
    "a queue that serves the longest part of it first",
    /^\d+ of quiet\d waited for \d+ ms$/,
    {
      store: (store) =>
        new Proxy(store, {
          get: (target, name) => {
            if (name !== "claim") return bound(target, name);
            return async (...[of, what, claimer]: Parameters<Store["claim"]>) => {
              const [busiest] = await target.busiestFunctions(1);
              const isIts = busiest === undefined || busiest.functionName === of.functionName;
              if (isIts) return target.claim(of, what, claimer);
              return { events: [], nextDueMs: what.nowMs + 1_000 };
            };
          },
        }),
    },
  ],
  [
    "a manager that refuses what it has room for",
    /which is not reached$/,
    {
      manager: (manager) => ({
        ...passed(manager),
        reserve: (request) =>
          request.requestId.endsWith("7")
            ? Promise.reject(throttled("ConcurrentInvocationLimitExceeded"))
            : manager.reserve(request),
      }),
    },
  ],
  [
    "leases of the wall clock",
    /was ended, neither by its deadline nor by a fault: broken$/,
    {
      managerClock: onWallTime,
    },
  ],
];

for (const [what, expected, sabotage] of SABOTAGES) {
  test(`the invariants see ${what}`, async () => {
    for (let seed = 1; seed <= CONTROL_SEEDS; seed += 1) {
      const { violations } = await simulate(seed, sabotage);
      if (violations.some((violation) => expected.test(violation))) return;
    }
    assert.fail(`${CONTROL_SEEDS} seeds ran as if nothing were wrong`);
  });
}

test("a seed that never ends is named", async () => {
  const watchdog = JSON.stringify(new URL("watchdog.ts", import.meta.url));
  const endless = `import { watchSeeds } from ${watchdog}; watchSeeds(500).begin(7); for (;;);`;
  const { failures } = await readSeeds(["--input-type=module", "--eval", endless]);
  assert.deepEqual(
    failures.map(({ seed }) => seed),
    [7],
  );
});

test("a seed's world is the same every time, another seed's another one", async () => {
  const [one, same, other] = [await simulate(3), await simulate(3), await simulate(4)];
  assert.deepEqual(one.lines, same.lines);
  assert.notDeepEqual(one.lines, other.lines);
});
