import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseSync } from "node:sqlite";
import { deploy } from "../../src/cli/deploy.ts";
import { dataFiles } from "../../src/daemon/settings.ts";
import { invoke } from "../functional/functions.ts";
import { eventually } from "../functional/hearth.ts";
import type { TestHearth } from "../functional/hearth.ts";
import { compile } from "../vmm/guest.ts";
import { ownerName } from "./processes.ts";
import { MarkedCodes } from "./code.ts";
import { BUSY, Load, RUNTIME } from "./load.ts";
import { Promised } from "./model.ts";
import type { Plan } from "./plans.ts";
import type { Random } from "./random.ts";
import {
  assertDatabaseSound,
  assertNetworksEnd,
  assertNothingLeft,
  assertProcessesEnd,
  networksOf,
} from "./remains.ts";
import type { Networks } from "./remains.ts";

export interface CampaignOptions {
  readonly hearth: TestHearth;
  readonly random: Random;
  /** Invocations at once, and events accepted at most, in one life of Hearth. */
  readonly invocations: number;
  readonly events: number;
}

/** What a campaign has seen so far. */
export interface Tally {
  kills: number;
  /** Of them by a chosen call, not by the clock. */
  atPlaces: number;
  duringStarts: number;
  changes: number;
  invocations: number;
  /** Events accepted. */
  events: number;
  /** Of them begun more than once. */
  repeated: number;
  /** Most runs of one event. */
  runsMax: number;
}

const BUSY_MARK = "busy";
const FUNCTIONS = 4;
const ENDING_MS_MAX = 1_000;
const QUEUE_MS_MAX = 60_000;

/**
 * Kills one Hearth again and again under load, and compares after each kill and each start what there is with what was
 * promised.
 */
export class Campaign {
  readonly tally: Tally = {
    kills: 0,
    atPlaces: 0,
    duringStarts: 0,
    changes: 0,
    invocations: 0,
    events: 0,
    repeated: 0,
    runsMax: 0,
  };
  readonly #options: CampaignOptions;
  readonly #codes = new MarkedCodes();
  readonly #functions = Array.from({ length: FUNCTIONS }, (_, n) => new Promised(`function-${n}`));
  readonly #preload: string;
  /** Request ids by mark, of every event that was accepted. */
  readonly #accepted = new Map<string, string>();
  /** How often an event was in somebody's hands when Hearth was killed, by request id. */
  readonly #interrupted = new Map<string, number>();
  /** As they stand in the names of what they owned. */
  #alive = "";
  /** Known once it has said what they are called. */
  #networks: Networks | null = null;
  readonly #dead: string[] = [];

  constructor(options: CampaignOptions) {
    this.#options = options;
    this.#preload = join(options.hearth.dataDir, "..", `crash-at-${process.pid}.so`);
    compile(new URL("crash-at.c", import.meta.url).pathname, this.#preload, ["-shared", "-fPIC"]);
  }

  get preload(): string {
    return this.#preload;
  }

  /** Hearth runs already: the function that will be invoked comes into being. */
  async begin(): Promise<void> {
    const { hearth } = this.#options;
    const { zip } = await this.#codes.make(BUSY_MARK);
    this.#alive = ownerName(hearth.pid);
    await deploy(hearth.client(), { name: BUSY, zip, runtime: RUNTIME, handler: "bootstrap", timeoutS: 20 });
    await this.#kill();
  }

  /** One life: from a start to a kill. */
  async round(plan: Plan): Promise<void> {
    if (!(await this.#start(plan))) {
      // It died while it came up. What that left is the next one's to clear away.
      this.tally.duringStarts += 1;
      await this.#afterKill();
      await this.#begin({});
    }
    if (!(await this.#survivesCheck()) || plan.during === "start") return this.#kill();
    await this.#load(plan);
  }

  /** False when it came to its chosen call while it was looked at. */
  async #survivesCheck(): Promise<boolean> {
    try {
      await this.#check();
      return true;
    } catch (error) {
      // A connection that broke is heard of before the end of the process.
      await Promise.race([this.#options.hearth.ended(), sleep(ENDING_MS_MAX)]);
      if (error instanceof assert.AssertionError || this.#options.hearth.isRunning) throw error;
      this.tally.atPlaces += 1;
      return false;
    }
  }

  /** The last life: everything that was accepted has run in the end. */
  async end(): Promise<void> {
    const { hearth } = this.#options;
    await this.#begin({});
    await this.#check();
    const database = new DatabaseSync(dataFiles(hearth.dataDir).database, { readOnly: true });
    try {
      await eventually(
        "the queue is empty",
        async () => (Number(database.prepare("SELECT count(*) AS n FROM events").get()?.["n"]) === 0 ? true : null),
        QUEUE_MS_MAX,
      );
    } finally {
      database.close();
    }
    await hearth.stop();
    await this.#checkEvents();
  }

  /** A new life, whose name is known before it can end. */
  #begin(environment: Readonly<Record<string, string>>): Promise<void> {
    const { hearth } = this.#options;
    const starting = hearth.start(environment);
    this.#alive = ownerName(hearth.pid);
    return starting;
  }

  /** Starts it so that it dies by plan; false when it did so before it served. */
  async #start({ during, place, afterMs }: Plan): Promise<boolean> {
    const { hearth } = this.#options;
    const environment = place === null ? {} : { HEARTH_CRASH_AT: place, LD_PRELOAD: this.#preload };
    const starting = this.#begin(environment).then(
      () => true,
      () => false,
    );
    if (during === "load") return starting;
    const timer = setTimeout(() => process.kill(hearth.pid, "SIGKILL"), afterMs);
    const serves = await starting;
    clearTimeout(timer);
    return serves;
  }

  /** A Hearth that has just started holds what was promised, has nothing of its predecessors, and serves. */
  async #check(): Promise<void> {
    const { hearth, random } = this.#options;
    this.#networks = networksOf(hearth.about.network.links);
    await assertNothingLeft(hearth.dataDir, this.#dead);
    const client = hearth.client();
    await Promise.all(this.#functions.map((each) => each.check(client)));
    const existing = this.#functions.filter((each) => each.state !== null);
    const [busy, other] = await Promise.all([
      invoke(client, BUSY),
      existing.length === 0 ? null : invoke(client, random.pick(existing).name),
    ]);
    assert.deepEqual([busy.error, busy.value], [undefined, BUSY_MARK]);
    assert.equal(other?.error, undefined);
  }

  async #load({ place, afterMs }: Plan): Promise<void> {
    const { hearth, random, invocations, events } = this.#options;
    const client = hearth.client();
    const load = new Load({ client, codes: this.#codes, random, functions: this.#functions, invocations, events });
    const running = load.run();
    const over = new AbortController();
    const died = await Promise.race([hearth.ended().then(() => true), sleep(afterMs, false, { signal: over.signal })]);
    over.abort();
    if (died && place !== null) this.tally.atPlaces += 1;
    await this.#kill();
    load.stop();
    await running;
    assert.deepEqual(load.surprises, []);
    for (const [mark, requestId] of load.accepted) this.#accepted.set(mark, requestId);
    this.tally.events += load.accepted.size;
    this.tally.changes += load.changed;
    this.tally.invocations += load.invoked;
  }

  async #kill(): Promise<void> {
    await this.#options.hearth.stop("SIGKILL");
    await this.#afterKill();
  }

  async #afterKill(): Promise<void> {
    const { hearth } = this.#options;
    this.tally.kills += 1;
    this.#dead.push(this.#alive);
    await assertProcessesEnd(hearth.dataDir);
    await assertNetworksEnd(this.#networks);
    this.#networks = null;
    for (const { eventId, claimed } of assertDatabaseSound(hearth.dataDir, this.#codes)) {
      if (claimed) this.#interrupted.set(eventId, (this.#interrupted.get(eventId) ?? 0) + 1);
    }
  }

  /** Every accepted event ran: once, and once more at most for every kill that found it in somebody's hands. */
  async #checkEvents(): Promise<void> {
    const lines = await this.#options.hearth.logOf(BUSY);
    const runs = new Map<string, number>();
    for (const line of lines) {
      const mark = /^run .*"mark":"(event-\d+-)"/.exec(line)?.[1];
      if (mark !== undefined) runs.set(mark, (runs.get(mark) ?? 0) + 1);
    }
    for (const [mark, requestId] of this.#accepted) {
      const count = runs.get(mark) ?? 0;
      const most = 1 + (this.#interrupted.get(requestId) ?? 0);
      assert.ok(count >= 1, `${mark} (${requestId}) was accepted and never ran`);
      assert.ok(count <= most, `${mark} (${requestId}) ran ${count} times, ${most} at most were expected`);
      this.tally.runsMax = Math.max(this.tally.runsMax, count);
      if (count > 1) this.tally.repeated += 1;
    }
  }
}
