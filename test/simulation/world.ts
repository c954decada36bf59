import { seededIds } from "../../src/lib/ids.ts";
import { seededRandom } from "../../src/lib/random.ts";
import type { Random } from "../../src/lib/random.ts";
import { VirtualClock } from "../../src/lib/virtual-clock.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite.ts";
import type { FunctionRecord, Store } from "../../src/store/store.ts";
import { ServiceError } from "../../src/wire/errors.ts";
import { SLOT_SWEEP_MS, SLOT_WAIT_MS_MAX } from "../../src/wire/limits.ts";
import { SharedCpu } from "./cpu.ts";
import { ACCOUNT, HearthProcess, REGION } from "./hearth-process.ts";
import type { Sabotage } from "./hearth-process.ts";
import { Journal } from "./journal.ts";
import type { Work } from "./journal.ts";
import { drawPlan } from "./plan.ts";
import type { Fault, Plan, PlannedFunction, PlannedWork } from "./plan.ts";

const SLOT_IDLE_MS = 5_000;
const RESERVED_TOTAL_MAX = 1_000;
/** By then everything must be over: a back-off of five minutes may come after all retries. */
const END_MS_MAX = 2 * 3_600_000;
/** A world in which something is broken on purpose may never be over. */
const SABOTAGED_MS_MAX = 10 * 60_000;
const LOOK_MS = 500;
/** For what is still on its way when the last answer is there. */
const AFTER_MS = 1_000;

/** What a run came to: its log, and what was violated. */
export interface Outcome {
  readonly lines: readonly string[];
  readonly violations: readonly string[];
}

const recordOf = ({ name, timeoutS }: PlannedFunction): FunctionRecord => ({
  accountId: ACCOUNT,
  region: REGION,
  functionName: name,
  version: "$LATEST",
  revisionId: "r1",
  runtime: "provided.al2023",
  handler: "h",
  role: `arn:aws:iam::${ACCOUNT}:role/lambda`,
  description: "",
  memoryMb: 128,
  timeoutS,
  ephemeralMb: 512,
  environment: {},
  architectures: ["x86_64"],
  code: { digest: "c".repeat(64), sha256Base64: "c", bytes: 1 },
  layers: [],
  logging: { format: "Text", group: `/aws/lambda/${name}`, applicationLevel: null, systemLevel: null },
  tracingMode: "PassThrough",
  state: "Active",
  stateReason: null,
  stateReasonCode: null,
  lastUpdateStatus: "Successful",
  lastUpdateStatusReason: null,
  lastUpdateStatusReasonCode: null,
  lastModifiedMs: 0,
  extra: {},
});

/** One machine, its clients and its bad luck, all of it drawn from a seed. */
class World {
  readonly #plan: Plan;
  readonly #random: Random;
  readonly #clock: VirtualClock;
  readonly #journal: Journal;
  readonly #store: Store;
  readonly #cpu: SharedCpu;
  readonly #sabotage: Sabotage;
  readonly #reserved: ReadonlyMap<string, number>;
  #process: HearthProcess | null = null;
  #diskFailsUntilMs = 0;
  #badBoots: ("spawn" | "silent" | "crash")[] = [];
  /** What has still to happen before all can be over. */
  #planned = 0;
  #isQuiet = false;

  constructor(seed: number, sabotage: Sabotage) {
    this.#plan = drawPlan(seed, seededRandom(seed));
    this.#random = seededRandom(seed + 1_000_003);
    this.#sabotage = sabotage;
    this.#clock = new VirtualClock({
      random: this.#random,
      onFailure: (error) => this.#journal.broken(`failed: ${error instanceof Error ? error.stack : String(error)}`),
    });
    const reserved = this.#plan.functions.flatMap(({ name, reserved: count }) =>
      count === null ? [] : [[name, count] as const],
    );
    this.#reserved = new Map(reserved);
    this.#journal = new Journal(this.#clock, {
      account: this.#plan.accountConcurrency,
      reserved: this.#reserved,
      waitMsMax: this.#plan.waitMsMax,
    });
    this.#journal.bootFault = () => this.#badBoots.shift() ?? null;
    this.#cpu = new SharedCpu(this.#clock, this.#plan.cpus);
    this.#store = openSqliteStore(":memory:", this.#clock);
  }

  async run(): Promise<Outcome> {
    const { functions, work, faults } = this.#plan;
    this.#do(async () => {
      for (const each of functions) {
        await this.#store.createFunction(recordOf(each), { "hearth:reuse": each.reuse });
        if (each.reserved === null) continue;
        await this.#store.setReservedConcurrency(ACCOUNT, each.name, each.reserved, RESERVED_TOTAL_MAX);
      }
      await this.#startProcess();
    });
    for (const each of work) this.#at(each.atMs, () => this.#begin(each));
    for (const { atMs, fault } of faults) this.#at(atMs, () => this.#strike(fault));
    this.#clock.every(LOOK_MS, async () => {
      const { waiting } = await this.#store.backlog();
      this.#isQuiet = waiting === 0 && this.#planned === 0 && this.#process !== null && this.#allAnswered();
    });
    const endMs = Object.keys(this.#sabotage).length === 0 ? END_MS_MAX : SABOTAGED_MS_MAX;
    const isOver = await this.#clock.runUntil(() => this.#isQuiet, endMs);
    if (!isOver) this.#tellUnfinished();
    await this.#clock.advance(AFTER_MS);
    await this.#finish();
    return { lines: this.#journal.lines, violations: this.#journal.violations };
  }

  #do(work: () => Promise<void>): void {
    this.#clock.after(0, work);
  }

  #at(atMs: number, act: () => void): void {
    this.#planned += 1;
    this.#clock.after(atMs, () => {
      this.#planned -= 1;
      act();
    });
  }

  async #startProcess(): Promise<void> {
    const process = new HearthProcess({
      world: { clock: this.#clock, cpu: this.#cpu, random: this.#random, observer: this.#journal },
      journal: this.#journal,
      ids: seededIds(this.#random),
      random: this.#random,
      store: this.#store,
      isDiskFailing: () => this.#clock.monotonicMs() < this.#diskFailsUntilMs,
      limits: {
        account: this.#plan.accountConcurrency,
        reserved: this.#reserved,
        isCalm: this.#plan.isCalm,
      },
      cpus: this.#plan.cpus,
      slotsMax: this.#plan.slotsMax,
      slotIdleMs: SLOT_IDLE_MS,
      sabotage: this.#sabotage,
    });
    await process.start();
    this.#process = process;
    this.#journal.note("Hearth started");
  }

  #begin({ order, functionName, asynchronous, isHopeless }: PlannedWork): void {
    const process = this.#process;
    if (process === null) return;
    const work: Work = {
      order,
      functionName,
      asynchronous,
      isHopeless,
      accepted: false,
      began: 0,
      finished: 0,
      cut: 0,
      crashes: 0,
      givenUp: null,
      answer: null,
      madeAtMs: this.#clock.monotonicMs(),
    };
    this.#journal.work.set(order.n, work);
    const payload = Buffer.from(JSON.stringify(order));
    this.#journal.note(`${asynchronous ? "event" : "call"} ${order.n} to ${functionName}`);
    const told = (text: string): void => {
      work.answer = text;
      this.#journal.note(`${order.n} is answered: ${text}`);
    };
    if (asynchronous) {
      process.send(functionName, `event-${order.n}`, payload).then(
        () => {
          work.accepted = true;
          told("202");
        },
        (error: unknown) => told(errorText(error)),
      );
    } else {
      process.call(functionName, `call-${order.n}`, payload).then(
        ({ error }) => {
          work.accepted = true;
          told(error === null ? "success" : error.errorType);
          if (isHopeless === (error === null)) this.#journal.broken(`${order.n} has the wrong answer`);
        },
        (error: unknown) => this.#refused(work, error, told),
      );
    }
  }

  #refused(work: Work, error: unknown, told: (text: string) => void): void {
    told(errorText(error));
    const status = error instanceof ServiceError ? error.status : 500;
    // Whether a limit was reached is what `watchReservations` looks at.
    if (status === 429 || (status >= 500 && !this.#plan.isCalm)) return;
    if (status === 503 && this.#clock.monotonicMs() - work.madeAtMs >= SLOT_WAIT_MS_MAX) return;
    this.#journal.broken(`${work.order.n} failed though nothing went wrong: ${errorText(error)}`);
  }

  #strike(fault: Fault): void {
    this.#journal.note(`fault ${JSON.stringify(fault)}`);
    switch (fault.kind) {
      case "wall":
        return this.#clock.stepWall(fault.byMs);
      case "stall":
        return this.#clock.pass(fault.ms);
      case "disk":
        this.#diskFailsUntilMs = this.#clock.monotonicMs() + fault.ms;
        return this.#at(fault.ms, () => {});
      case "boots":
        this.#badBoots = Array.from({ length: fault.count }, () => fault.how);
        return;
      case "death": {
        const all = [...(this.#process?.hypervisor.live ?? [])];
        const running = all.filter((vm) => vm.isRunning);
        const among = fault.runs && running.length > 0 ? running : all;
        return among[Math.floor(fault.draw * among.length)]?.die("The hypervisor process died of SIGKILL");
      }
      case "crash":
        return this.#crash(fault.downMs);
    }
  }

  #crash(downMs: number): void {
    const process = this.#process;
    if (process === null) return;
    this.#process = null;
    process.crash();
    for (const work of this.#journal.work.values()) {
      work.crashes += 1;
      // Its client has lost the connection.
      if (work.answer === null) work.answer = "connection lost";
    }
    this.#at(downMs, () => this.#do(() => this.#startProcess()));
  }

  #allAnswered(): boolean {
    return [...this.#journal.work.values()].every(({ answer }) => answer !== null);
  }

  #tellUnfinished(): void {
    for (const { order, answer } of this.#journal.work.values())
      if (answer === null) this.#journal.broken(`${order.n} never got an answer`);
    this.#journal.broken("what was asked for is not over long after the last fault");
  }

  /** Everything is asked for, answered, and run: what is left must go by itself. */
  async #finish(): Promise<void> {
    const process = this.#process;
    if (process === null) return this.#journal.broken("Hearth did not come back");
    for (const work of this.#journal.work.values()) this.#checkEnd(work);
    const { account } = await process.manager.concurrency();
    if (account !== 0) this.#journal.broken(`${account} leases are left over`);
    await this.#clock.advance(2 * SLOT_IDLE_MS + 2 * SLOT_SWEEP_MS);
    const slots = await process.worker.listSlots();
    if (slots.length > 0)
      this.#journal.broken(`${slots.length} slots are left over: ${slots.map(({ state }) => state).join()}`);
    let stopped = false;
    void process.stop().then(() => (stopped = true));
    await this.#clock.runUntil(() => stopped, this.#clock.monotonicMs() + END_MS_MAX);
    if (!stopped) this.#journal.broken("Hearth does not stop");
    await this.#clock.advance(AFTER_MS);
    if (process.hypervisor.live.size > 0)
      this.#journal.broken(`${process.hypervisor.live.size} microVMs are left over`);
    process.clock.kill();
    await this.#store[Symbol.asyncDispose]();
  }

  #checkEnd(work: Work): void {
    const { order, asynchronous, accepted, isHopeless, finished, givenUp } = work;
    if (!asynchronous || !accepted) return;
    if (isHopeless ? givenUp?.startsWith("RetriesExhausted") === true : finished > 0 && givenUp === null) return;
    this.#journal.broken(
      `event ${order.n} was accepted, began ${work.began} times, ended ${finished} times, given up: ${String(givenUp)}`,
    );
  }
}

const errorText = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error);

/** Runs the world of a seed to its end. */
export const simulate = (seed: number, sabotage: Sabotage = {}): Promise<Outcome> => new World(seed, sabotage).run();
