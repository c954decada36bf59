import type { GuestDevice } from "../vmm/microvm.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { OPEN_FILES_MAX, PIDS_MAX } from "../wire/limits.ts";
import { ConfigureField } from "../wire/shim-protocol.ts";
import type { Field } from "../wire/shim-protocol.ts";
import { fitsPrepared, functionEnvironment } from "./environment.ts";
import type { SlotNetwork } from "./network/slot-network.ts";
import type { RuntimeImage } from "./runtime-images.ts";
import { STARVED_MS_MAX } from "./starts/limits.ts";

const BYTES_PER_MIB = 1024 * 1024;

/** What was attached for a slot. */
export interface GuestDrives {
  readonly root: readonly GuestDevice[];
  readonly code: GuestDevice;
  readonly scratch: GuestDevice;
  readonly layers: readonly GuestDevice[];
}

/** Whether a runtime that was started before its function was known can become this one's. */
export const mayTakePrepared = (spec: FunctionSpec, { environment, readAtStart }: RuntimeImage): boolean =>
  readAtStart !== null && fitsPrepared(spec, environment, readAtStart);

export interface SlotConfiguration {
  readonly spec: FunctionSpec;
  readonly runtime: RuntimeImage;
  readonly drives: GuestDrives;
  /** null: the function has its loopback only. */
  readonly network: SlotNetwork | null;
  readonly logStream: string;
  /** The wall clock's time, in ms. */
  readonly unixMs: number;
}

/** What the shim is told with `Configure`. */
export const configureFields = ({ spec, runtime, drives, network, logStream, unixMs }: SlotConfiguration): Field[] => [
  ...drives.root.map((device): Field => [ConfigureField.RootDrive, device]),
  [ConfigureField.CodeDrive, drives.code],
  [ConfigureField.ScratchDrive, drives.scratch],
  ...drives.layers.map((device): Field => [ConfigureField.LayerDrive, device]),
  ...runtime.argv.map((argument): Field => [ConfigureField.Argument, argument]),
  ...functionEnvironment(spec, runtime.environment, logStream).map((variable): Field => [
    ConfigureField.Environment,
    variable,
  ]),
  [ConfigureField.WorkingDirectory, "/var/task"],
  [ConfigureField.MemoryBytesMax, spec.memoryMb * BYTES_PER_MIB],
  [ConfigureField.TmpBytesMax, spec.ephemeralMb * BYTES_PER_MIB],
  [ConfigureField.PidsMax, PIDS_MAX],
  // The guest cannot tell which time it could use: its init is ended from here (`EndInit`).
  [ConfigureField.InitTimeoutMs, STARVED_MS_MAX],
  [ConfigureField.TimeoutMs, spec.timeoutMs],
  [ConfigureField.FunctionName, spec.functionName],
  [ConfigureField.FunctionVersion, spec.version],
  [ConfigureField.Handler, spec.handler],
  [ConfigureField.AccountId, spec.accountId],
  [ConfigureField.OpenFilesMax, OPEN_FILES_MAX],
  [ConfigureField.UnixTimeUs, unixMs * 1000],
  [ConfigureField.TakePrepared, mayTakePrepared(spec, runtime) ? 1 : 0],
  ...(network === null ? [] : networkFields(network)),
];

const networkFields = ({ guest }: SlotNetwork): Field[] => [
  [ConfigureField.NetworkAddress, guest.address],
  [ConfigureField.NetworkGateway, guest.gateway],
  ...guest.nameServers.map((server): Field => [ConfigureField.NameServer, server]),
];
