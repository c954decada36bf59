import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { promisify } from "node:util";

import type { VmmOptions } from "../../config.ts";
import type { HypervisorProbe } from "../../microvm.ts";

const run = promisify(execFile);

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** Whether jailed UML guests can run here; `cgroups` says what was found of those. */
export const probeUml = async (options: VmmOptions, cgroups: string): Promise<HypervisorProbe> => {
  if (process.platform !== "linux" || process.arch !== "x64")
    return { usable: false, reason: `UML needs Linux on x86-64; this is ${process.platform} on ${process.arch}` };
  if (!isExecutable(options.umlKernel))
    return { usable: false, reason: `there is no guest kernel at ${options.umlKernel}; run "npm run build:kernels"` };
  if (!isExecutable(options.bwrap))
    return { usable: false, reason: `${options.bwrap} is missing; install the package bubblewrap` };
  try {
    // As the user a jail starts as: what root may do says nothing of user namespaces.
    const unprivileged = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
    await run(
      options.bwrap,
      ["--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true"],
      unprivileged,
    );
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim();
    return {
      usable: false,
      reason: `bubblewrap cannot make a jail here (are unprivileged user namespaces allowed?): ${said ?? String(error)}`,
    };
  }
  const who =
    process.getuid?.() === 0 ? "each microVM is a user of its own" : "not root: all microVMs run as this user";
  return { usable: true, detail: `UML under bubblewrap, ${cgroups}, ${who}` };
};
