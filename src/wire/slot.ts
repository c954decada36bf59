/** `always`: a slot serves invocation after invocation. `never`: every invocation gets a fresh microVM. */
export type ReusePolicy = "always" | "never";

/** Init → Idle ⇄ Busy → Dead. Dead can be reached from everywhere and is never left. */
export type SlotState = "Init" | "Idle" | "Busy" | "Dead";

export interface SlotInfo {
  readonly slotId: string;
  readonly workerId: string;
  readonly functionKey: string;
  readonly functionArn: string;
  readonly version: string;
  readonly state: SlotState;
  readonly memoryMb: number;
  /** Unix ms. */
  readonly createdAtMs: number;
  /** Unix ms of the last change of state. */
  readonly since: number;
  readonly invocations: number;
  /** Host memory in bytes, as last measured; 0 before the first measurement. */
  readonly memoryBytes: number;
  /** CPU time in µs that its microVM has used on the host, as last measured; 0 before the first measurement. */
  readonly cpuTimeUs: number;
  /** Bytes of the host's disk that its `/tmp` takes, as last measured; 0 before the first measurement. */
  readonly scratchBytes: number;
  readonly cpu: number;
}

/** `nat`: every slot has a network of its own and gets out through the host. `none`: functions have their loopback only. */
export const NETWORK_MODES = ["nat", "none"] as const;
export type NetworkMode = (typeof NETWORK_MODES)[number];
