import type { Clock } from "../lib/clock.ts";
import type { CpuShare, Drive, GuestDevice, Hypervisor, MicroVm } from "../vmm/microvm.ts";
import { BOOT_TIMEOUT_MS, EPHEMERAL_MB_DEFAULT } from "../wire/limits.ts";
import { decodeFields } from "../wire/shim-codec.ts";
import { FromShim, HelloField, SHIM_PORT, SHIM_PROTOCOL_VERSION } from "../wire/shim-protocol.ts";
import { ShimLink } from "./shim-link.ts";
import { afterUsable, overText } from "./starts/usable-time.ts";

/** A microVM whose shim has said hello. It belongs to nobody yet. */
export interface BootedMicroVm extends AsyncDisposable {
  readonly vm: MicroVm;
  readonly link: ShimLink;
  readonly memoryMib: number;
  /** Images that it has, by their host paths. */
  readonly drives: ReadonlyMap<string, GuestDevice>;
  /** The runtime that waits in it for its function; null when none does. */
  readonly runtime: string | null;
  /** ms from spawn to the shim's hello. */
  readonly bootMs: number;
}

export interface BootOptions {
  readonly clock: Clock;
  readonly hypervisor: Hypervisor;
  /** The base image. */
  readonly root: Drive;
  /** Path of the shim in it. */
  readonly init: string;
  /** The network card that every guest gets; null for none. */
  readonly network: { readonly mtu: number; readonly mbitPerS?: number } | null;
  /** Lines of the guest's console, for the log at debug level. */
  readonly onConsole: (id: string, chunk: Uint8Array) => void;
}

/** The guest did not come up: why, in one sentence. */
export class BootError extends Error {
  override readonly name = "BootError";
}

/** Said at once. */
export const WANTED: Promise<void> = Promise.resolve();
/** What somebody waits for has all of a CPU that it can get, as a function has during its init. */
const URGENT: CpuShare = { share: 1, hard: false };

/**
 * Boots a microVM up to its shim's hello, with `images` (host paths) as further read-only drives; it gives way to those that
 * work until `wanted` says that somebody waits for it. Throws `BootError`, with nothing left behind, when that fails.
 */
export const bootMicroVm = async (
  options: BootOptions,
  id: string,
  memoryMib: number,
  images: readonly string[] = [],
  wanted: Promise<void> = WANTED,
): Promise<BootedMicroVm> => {
  const { clock } = options;
  const startedMs = clock.monotonicMs();
  const unique = [...new Set(images)];
  const vm = await options.hypervisor.spawn({
    id,
    memoryMib,
    drives: [options.root, ...unique.map((path) => ({ path, readOnly: true }))],
    // Most functions have a /tmp of this size.
    scratchMib: EPHEMERAL_MB_DEFAULT,
    init: options.init,
    ...(options.network === null ? {} : { network: options.network }),
    onConsole: (chunk) => options.onConsole(id, chunk),
  });
  wanted
    .then(() => vm.setCpuShare(URGENT))
    // Who waits for it would wait twenty times as long.
    .catch((error: unknown) => vm.kill(`it could not be hurried: ${String(error)}`));
  try {
    const link = await shimOf(clock, vm);
    const bootMs = clock.monotonicMs() - startedMs;
    vm.setBusy(false);
    const drives = new Map(unique.map((path, index) => [path, vm.deviceOf(index + 1)]));
    return {
      vm,
      link,
      memoryMib,
      bootMs,
      drives,
      runtime: null,
      [Symbol.asyncDispose]: () => vm[Symbol.asyncDispose](),
    };
  } catch (error) {
    await vm.kill("it did not boot");
    throw error;
  }
};

/** Waits for the guest's shim to connect and say hello. */
const shimOf = (clock: Clock, vm: MicroVm): Promise<ShimLink> => {
  const { promise, resolve, reject } = Promise.withResolvers<ShimLink>();
  const fail = (why: string, cause: Error | null = null): void =>
    reject(new BootError(`microVM ${vm.id} did not come up: ${why}`, { cause }));
  const timer = afterUsable(clock, {
    read: () => vm.cpuTimes(),
    usableMsMax: BOOT_TIMEOUT_MS,
    onOver: (why) => fail(`no hello from its shim ${overText(why, BOOT_TIMEOUT_MS)}`),
  });
  void vm.exited.then((exit) => fail(exit.detail, exit.error));
  let connected = false;
  vm.listen(SHIM_PORT, (stream) => {
    if (connected) {
      // The shim connects once, before any other program runs in the guest; whoever comes later is not the shim.
      stream.on("error", () => {});
      stream.destroy();
      return;
    }
    connected = true;
    const link = new ShimLink(stream, vm.clock);
    link.own({
      frame: (frame) => {
        if (frame.type !== FromShim.Hello) return fail(`its first frame was 0x${frame.type.toString(16)}, not a hello`);
        const version = decodeFields(frame.payload).number(HelloField.ProtocolVersion);
        if (version !== SHIM_PROTOCOL_VERSION) {
          return fail(`its shim speaks version ${version} of the protocol, not ${SHIM_PROTOCOL_VERSION}`);
        }
        resolve(link);
      },
      closed: fail,
    });
  });
  return promise.finally(() => timer[Symbol.dispose]());
};
