import {
  CreateFunctionCommand,
  DeleteFunctionCommand,
  InvokeCommand,
  LambdaServiceException,
  PublishVersionCommand,
  ResourceConflictException,
  UpdateFunctionCodeCommand,
} from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { setTimeout as sleep } from "node:timers/promises";
import { settled } from "../../src/cli/deploy.ts";
import type { MarkedCodes } from "./code.ts";
import type { FunctionState, Promised, Version } from "./model.ts";
import type { Random } from "./random.ts";

/** The function that is invoked; those that are deployed and removed all the time have other names. */
export const BUSY = "busy";
export const RUNTIME = "provided.al2023";
const ROLE = "arn:aws:iam::000000000000:role/crash";
const INVOKE_MS = 700;
const EVENT_MS = 150;
const EVENT_PAUSE_MS = 40;

export interface LoadOptions {
  readonly client: LambdaClient;
  readonly codes: MarkedCodes;
  readonly random: Random;
  readonly functions: readonly Promised[];
  /** Invocations at once. */
  readonly invocations: number;
  /** Events sent at most. */
  readonly events: number;
}

type Existing = Exclude<FunctionState, null>;

/** What many clients do at once, until Hearth is gone under them. What was answered is kept; what failed otherwise too. */
export class Load {
  /** Request ids of events by their marks: those answered with 202. */
  readonly accepted: Map<string, string> = new Map();
  readonly surprises: Error[] = [];
  invoked = 0;
  changed = 0;
  readonly #options: LoadOptions;
  #ended = false;
  static #events = 0;
  static #codes = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
  }

  /** Resolves when every client has seen its connection fail, or `stop` was called. */
  async run(): Promise<void> {
    const { functions, invocations } = this.#options;
    await Promise.all([
      ...functions.map((each) => this.#forever(() => this.#change(each))),
      ...Array.from({ length: invocations }, () => this.#forever(() => this.#invoke())),
      this.#forever(() => this.#event()),
    ]);
  }

  stop(): void {
    this.#ended = true;
  }

  async #forever(act: () => Promise<void>): Promise<void> {
    while (!this.#ended) {
      try {
        await act();
      } catch (error) {
        // Not an answer: the connection broke, and so nobody knows what became of it.
        if (!(error instanceof LambdaServiceException)) return;
        this.surprises.push(error);
        return;
      }
    }
  }

  async #invoke(): Promise<void> {
    const Payload = JSON.stringify({ ms: INVOKE_MS });
    await this.#options.client.send(new InvokeCommand({ FunctionName: BUSY, Payload }));
    this.invoked += 1;
  }

  async #event(): Promise<void> {
    await sleep(EVENT_PAUSE_MS);
    if (this.accepted.size >= this.#options.events) return;
    const mark = `event-${(Load.#events += 1)}-`;
    const Payload = JSON.stringify({ mark, ms: EVENT_MS });
    const input = { FunctionName: BUSY, InvocationType: "Event", Payload } as const;
    const answer = await this.#options.client.send(new InvokeCommand(input));
    this.accepted.set(mark, answer.$metadata.requestId ?? "");
  }

  /** One change of one function, drawn from those that are possible now. */
  async #change(promised: Promised): Promise<void> {
    const { random, client } = this.#options;
    const { state } = promised;
    try {
      if (state === null) await this.#create(promised);
      else {
        await random.pick([
          () => this.#update(promised, state),
          () => this.#update(promised, state),
          () => this.#publish(promised, state),
          () => this.#removeVersion(promised, state),
          () => this.#remove(promised),
        ])();
      }
      this.changed += 1;
    } catch (error) {
      if (!(error instanceof ResourceConflictException)) throw error;
      promised.refused();
      await settled(client, promised.name);
    }
  }

  #newCode(): ReturnType<MarkedCodes["make"]> {
    return this.#options.codes.make(`code-${(Load.#codes += 1)}`);
  }

  async #create(promised: Promised): Promise<void> {
    const { zip, sha256 } = await this.#newCode();
    const Publish = this.#options.random.below(2) === 0;
    const made = { sha256, versions: [] };
    promised.begin(made, ...(Publish ? [withVersion(made, null)] : []));
    const common = { FunctionName: promised.name, Role: ROLE, Runtime: RUNTIME, Handler: "bootstrap" } as const;
    const answer = await this.#options.client.send(
      new CreateFunctionCommand({ ...common, Code: { ZipFile: zip }, Publish }),
    );
    this.#published(promised, made, Publish ? answer.Version : undefined);
  }

  async #update(promised: Promised, state: Existing): Promise<void> {
    const { zip, sha256 } = await this.#newCode();
    const Publish = this.#options.random.below(2) === 0;
    const made = { ...state, sha256 };
    promised.begin(made, ...(Publish ? [withVersion(made, null)] : []));
    const answer = await this.#options.client.send(
      new UpdateFunctionCodeCommand({ FunctionName: promised.name, ZipFile: zip, Publish }),
    );
    this.#published(promised, made, Publish ? answer.Version : undefined);
  }

  async #publish(promised: Promised, state: Existing): Promise<void> {
    promised.begin(withVersion(state, null));
    const answer = await this.#options.client.send(new PublishVersionCommand({ FunctionName: promised.name }));
    this.#published(promised, state, answer.Version);
  }

  async #removeVersion(promised: Promised, state: Existing): Promise<void> {
    if (state.versions.length === 0) return;
    const version = this.#options.random.pick(state.versions);
    const left = { ...state, versions: state.versions.filter((each) => each !== version) };
    promised.begin(left);
    const Qualifier = String(version.number);
    await this.#options.client.send(new DeleteFunctionCommand({ FunctionName: promised.name, Qualifier }));
    promised.done(left);
  }

  async #remove(promised: Promised): Promise<void> {
    promised.begin(null);
    await this.#options.client.send(new DeleteFunctionCommand({ FunctionName: promised.name }));
    promised.done(null);
  }

  /** Publishing what has not changed gives the version there is. */
  #published(promised: Promised, state: Existing, version: string | undefined): void {
    const number = Number(version);
    if (version === undefined || state.versions.some((each) => each.number === number)) return promised.done(state);
    promised.given(number);
    promised.done(withVersion(state, number));
  }
}

const withVersion = (state: Existing, number: Version["number"]): Existing => ({
  ...state,
  versions: [...state.versions, { number, sha256: state.sha256 }],
});
