import type { Logger, LogOutput, MetricsRegistry } from "../telemetry/index.ts";
import type { WorkerSlotApi } from "../wire/roles.ts";
import type { NetworkMode, ReusePolicy } from "../wire/slot.ts";
import type { DrivePages } from "../vmm/config.ts";
import type { CpuPolicy } from "../worker/cpu-share.ts";
import type { AddressRange } from "../worker/network/address-range.ts";
import type { Keys, TlsFiles } from "../frontend/frontend.ts";
import type { Address } from "./settings.ts";

export const HYPERVISORS = ["auto", "uml", "kvm", "firecracker"] as const;
export type HypervisorChoice = (typeof HYPERVISORS)[number];

/** What `assembleHearth` (assemble.ts) makes a Hearth of. null means: Hearth decides. */
export interface HearthOptions {
  readonly listen: Address;
  /** Where Prometheus may ask for the metrics; null for nowhere but the control socket. */
  readonly metricsListen: Address | null;
  /** Base URL of the OTLP receiver of traces; null for what OpenTelemetry's variables say, which may be none. */
  readonly otlp: string | null;
  readonly dataDir: string;
  readonly auth: "sigv4" | "none";
  /** Names besides the address that requests may be for when `auth` is `none`. */
  readonly allowedHosts: readonly string[];
  readonly keys: Keys;
  /** What TLS is served with; null for plain HTTP. */
  readonly tls: TlsFiles | null;
  readonly accountId: string;
  readonly region: string;
  readonly hypervisor: HypervisorChoice;
  /** Nominal memory of all slots together, in MB; null for `overcommit`. */
  readonly memoryMbMax: number | null;
  /** The same as a multiple of this host's memory. */
  readonly overcommit: number | null;
  readonly slotsMax: number | null;
  readonly cpu: CpuPolicy;
  readonly drivePages: DrivePages;
  /** microVMs kept booted and waiting. */
  readonly pool: number | null;
  readonly network: NetworkMode | null;
  /** IPv4 addresses; null takes those of the host. */
  readonly nameServers: readonly string[] | null;
  /** Ranges that functions reach though they are closed by default. */
  readonly networkAllow: readonly AddressRange[];
  /** What a slot's network card carries each way, in Mbit/s. */
  readonly networkMbitPerS: number | null;
  /** What the `/tmp` of all functions may take of the disk, in MB; null for what is free but for a reserve. */
  readonly scratchMbMax: number | null;
  /** Log that one slot may write in a second for as long as it likes, in KiB. */
  readonly logRateKib: number | null;
  /** What is kept of functions' logs: of all together, in MB, and days since a log's last line. */
  readonly logsMbMax: number | null;
  readonly logAgeDaysMax: number | null;
  /** For functions without a tag of their own. */
  readonly reuse: ReusePolicy;
  readonly log: Logger;
  /** Where that log goes: what got lost on the way is a metric. */
  readonly logOutput: Pick<LogOutput, "losses">;
}

/** A Hearth that serves. Disposing it ends it at once; `drain` first lets running invocations end. */
/** What an operator may know of the queue: metrics carry no function's name, so who fills it stands here. */
export interface QueueReading {
  /** Events, those that run included. */
  readonly waiting: number;
  readonly running: number;
  /** Functions that have fewer events running than are due, because they were throttled. */
  readonly throttledFunctions: number;
  /** Those with the most events, most first. */
  readonly busiest: readonly { readonly functionName: string; readonly waiting: number }[];
}

export interface RunningHearth extends AsyncDisposable {
  /** Where it listens, with the port that was really taken. */
  readonly address: Address;
  readonly hypervisor: { readonly name: string; readonly reason: string };
  /** `links`: what the host's links to its slots are called, as nftables writes it; null without any. */
  readonly network: { readonly mode: NetworkMode; readonly reason: string; readonly links: string | null };
  readonly slots: Pick<WorkerSlotApi, "listSlots" | "report">;
  /** The queue of asynchronous invocations, looked at now. */
  readonly queue: () => Promise<QueueReading>;
  readonly metrics: MetricsRegistry;
  /** Takes nothing new and resolves when nothing runs any more, or after `timeoutMs`. */
  drain(timeoutMs: number): Promise<void>;
}

export type AssembleHearth = (options: HearthOptions) => Promise<RunningHearth>;
