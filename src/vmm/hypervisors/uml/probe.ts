import { accessSync, constants } from "node:fs";
import { constants as osConstants } from "node:os";

import type { Clock } from "../../../lib/clock.ts";
import type { VmmOptions } from "../../config.ts";
import type { DeviceHost } from "../../devices/virtio-device.ts";
import type { Jail } from "../../jail/jail.ts";
import { describeViolation, type Violation } from "../../jail/seccomp.ts";
import type { HypervisorProbe } from "../../microvm.ts";
import { native } from "../../native.ts";
import { Watch, type WatchOwner } from "../../poller.ts";
import { ConsolePipe } from "./console-pipe.ts";

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** Starts the kernel's `--version` in a jail. What it holds is added to `setup`. */
export type StartVersion = (
  console: ConsolePipe["descriptors"],
  owner: WatchOwner,
  onViolation: (violation: Violation) => void,
  setup: DisposableStack,
) => Promise<Jail>;

const ended = (jail: Jail, owner: WatchOwner, setup: DisposableStack): Promise<number> =>
  new Promise((resolve) => {
    const result = new Int32Array(2);
    setup.use(
      new Watch(jail.pidfd, owner, () => {
        if (native().reap(jail.pid, result) === 1) resolve(result[0] ?? -1);
      }),
    );
  });

/** Null when the kernel ran in a jail and said its version, else what was wrong. */
const tryJail = async (start: StartVersion, clock: Clock): Promise<string | null> => {
  using setup = new DisposableStack();
  const said: Uint8Array[] = [];
  const failed = Promise.withResolvers<never>();
  const host: DeviceHost = {
    clock,
    run: (work) => {
      try {
        work();
      } catch (error) {
        failed.reject(error);
      }
    },
  };
  try {
    using pipe = new ConsolePipe(host, (chunk) => said.push(chunk), null);
    const violated = Promise.withResolvers<Violation>();
    const jail = await start(pipe.descriptors, host, violated.resolve, setup);
    pipe.started();
    const exit = ended(jail, host, setup);
    const end = await Promise.race([exit, violated.promise, failed.promise]);
    if (typeof end === "number") {
      pipe.drain();
      return end === 0 ? null : Buffer.concat(said).toString().trim() || `code ${String(end)}`;
    }
    native().sendSignal(jail.pidfd, osConstants.signals.SIGKILL);
    await exit;
    return `it made the forbidden system call ${describeViolation(end)}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
};

/** Whether jailed UML guests can run here; `cgroups` says what was found of those. */
export const probeUml = async (options: VmmOptions, cgroups: string, start: StartVersion): Promise<HypervisorProbe> => {
  if (process.platform !== "linux" || process.arch !== "x64")
    return { usable: false, reason: `UML needs Linux on x86-64; this is ${process.platform} on ${process.arch}` };
  if (!isExecutable(options.umlKernel))
    return { usable: false, reason: `there is no guest kernel at ${options.umlKernel}; run "npm run build:kernels"` };
  if (!isExecutable(options.jailEnter))
    return { usable: false, reason: `${options.jailEnter} is missing; run "npm run build:native"` };
  if (!isExecutable(options.bwrap))
    return { usable: false, reason: `${options.bwrap} is missing; install the package bubblewrap` };
  const wrong = await tryJail(start, options.clock);
  if (wrong !== null)
    return {
      usable: false,
      reason: `no jail can be made here (are unprivileged user namespaces and seccomp allowed?): ${wrong}`,
    };
  const who =
    process.getuid?.() === 0 ? "each microVM is a user of its own" : "not root: all microVMs run as this user";
  return { usable: true, detail: `UML under bubblewrap and seccomp, ${cgroups}, ${who}` };
};
