/** What tests and measurements of the Worker Manager stand on: functions, and a worker without microVMs. */
import { serviceFailure, slotGone } from "../wire/errors.ts";
import { functionKey } from "../wire/function.ts";
import type { FunctionSpec } from "../wire/function.ts";
import type { WorkerReport, WorkerSlotApi } from "../wire/roles.ts";
import type { SlotInfo, SlotState } from "../wire/slot.ts";

export const specOf = (name: string, revision = "r1"): FunctionSpec => ({
  functionArn: `arn:aws:lambda:us-east-1:000000000000:function:${name}`,
  functionName: name,
  version: "$LATEST",
  revision,
  accountId: "000000000000",
  region: "us-east-1",
  runtime: "provided.al2023",
  handler: "x",
  memoryMb: 128,
  timeoutMs: 3_000,
  ephemeralMb: 512,
  environment: {},
  code: "c",
  layers: [],
  logGroup: `/aws/lambda/${name}`,
  logFormat: "Text",
  reuse: "always",
});

/** A worker that only keeps the list of its slots: what the manager asks of it is what is looked at. */
export class ListedWorker implements WorkerSlotApi {
  readonly workerId: string;
  readonly slots: Map<string, SlotInfo> = new Map();
  readonly ended: [string, string][] = [];
  /** Takes no new slot. */
  refuses = false;
  /** Starts wait until `begin`. */
  holds = false;
  readonly #held: Map<string, { readonly begin: () => void; readonly withdraw: () => void }> = new Map();
  #listener: (slot: SlotInfo) => void = () => {};

  constructor(workerId: string) {
    this.workerId = workerId;
  }

  createSlot(request: { slotId: string; spec: FunctionSpec }): Promise<SlotInfo> {
    if (this.refuses) throw serviceFailure(`${this.workerId} is full`);
    if (!this.holds) return Promise.resolve(this.add(request.slotId, request.spec));
    const { promise, resolve, reject } = Promise.withResolvers<SlotInfo>();
    this.#held.set(request.slotId, {
      begin: () => resolve(this.add(request.slotId, request.spec, "Init")),
      withdraw: () => reject(slotGone("taken back")),
    });
    return promise;
  }

  /** Starts that wait, in their order. */
  get held(): readonly string[] {
    return [...this.#held.keys()];
  }

  begin(slotId: string): void {
    this.#held.get(slotId)?.begin();
    this.#held.delete(slotId);
  }

  /** Init is over. */
  ready(slotId: string): void {
    const info = this.slots.get(slotId);
    if (info !== undefined) this.#listener({ ...info, state: "Idle" });
  }

  add(slotId: string, of: FunctionSpec, state: SlotState = "Idle"): SlotInfo {
    const info: SlotInfo = {
      slotId,
      workerId: this.workerId,
      functionKey: functionKey(of),
      functionArn: of.functionArn,
      version: of.version,
      state,
      memoryMb: of.memoryMb,
      createdAtMs: 0,
      since: 0,
      invocations: 0,
      memoryBytes: 0,
      cpuTimeUs: 5,
      scratchBytes: 0,
      cpu: 0,
    };
    this.slots.set(slotId, info);
    return info;
  }

  die(slotId: string): void {
    const info = this.slots.get(slotId);
    if (info === undefined) return;
    this.slots.delete(slotId);
    this.#listener({ ...info, state: "Dead" });
  }

  withdrawSlot(slotId: string): Promise<void> {
    this.#held.get(slotId)?.withdraw();
    this.#held.delete(slotId);
    return Promise.resolve();
  }

  endSlot(slotId: string, reason: string): Promise<void> {
    this.ended.push([slotId, reason]);
    this.die(slotId);
    return Promise.resolve();
  }

  listSlots(): Promise<readonly SlotInfo[]> {
    return Promise.resolve([...this.slots.values()]);
  }

  report(): Promise<WorkerReport> {
    throw new Error("the manager never asks for it");
  }

  onSlot(listener: (slot: SlotInfo) => void): () => void {
    this.#listener = listener;
    return () => {};
  }
}
