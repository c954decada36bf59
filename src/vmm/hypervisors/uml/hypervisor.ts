import { realpathSync, statSync } from "node:fs";
import { basename, relative } from "node:path";

import { vmmOptions, type VmmOptions } from "../../config.ts";
import { FrameBatch } from "../../devices/frames.ts";
import { netRate, type NetRate } from "../../devices/net-rate.ts";
import { NetDevice } from "../../devices/net.ts";
import type { VirtioDevice } from "../../devices/virtio-device.ts";
import { VsockDevice } from "../../devices/vsock.ts";
import type { JailMount } from "../../jail/bubblewrap.ts";
import { Cgroup, detectCgroups, type CgroupLayout } from "../../jail/cgroup.ts";
import { OWN_DIRECTORY, startJail, type JailOptions } from "../../jail/jail.ts";
import { GroupWeight } from "../../jail/group-weight.ts";
import { assembleFilter, type Violation } from "../../jail/seccomp.ts";
import { CpuAllocator } from "../../jail/cpu-allocator.ts";
import { UserAllocator } from "../../jail/user-allocator.ts";
import { GuestTurns } from "../../guest-turns.ts";
import {
  CPU_SHARE_BOOT,
  GUEST_MEMORY_MIB_MAX,
  GUEST_MEMORY_MIB_MIN,
  JAIL_MEMORY_OVERHEAD_BYTES,
  JAIL_PIDS_MAX,
  MAPPED_MEMORY_BYTES_MORE,
  MICROVM_ID_CHARS_MAX,
  SCRATCH_BYTES_MAX,
} from "../../limits.ts";
import type { Drive, Hypervisor, HypervisorProbe, MicroVm, MicroVmConfig } from "../../microvm.ts";
import { takeOwnDirectory } from "../../own-directory.ts";
import { MemoryMappings } from "../../transports/memory-mappings.ts";
import { MemorySlices } from "../../transports/memory-slices.ts";
import { VhostUserBackend, type BackendEnd } from "../../transports/vhost-user.ts";
import { umlCommandLine } from "./command-line.ts";
import { ConsolePipe } from "./console-pipe.ts";
import {
  cgroupName,
  checkReadable,
  cleanStale,
  copyProgram,
  isReachable,
  RunDirectory,
  staleGroups,
} from "./run-directory.ts";
import { StaleGroups } from "./stale-groups.ts";
import { DriveDirectory, DRIVES } from "./drive-directory.ts";
import { Leftovers } from "./leftovers.ts";
import { probeUml } from "./probe.ts";
import { SCRATCH, ScratchDirectory, ScratchTemplates } from "./scratch-directory.ts";
import { endByViolation, UML_RULES } from "./system-calls.ts";
import { UmlMicroVm } from "./uml-microvm.ts";

const MIB = 1024 * 1024;
/** MicroVMs' users pass through, and list nothing. */
const DIRECTORY_MODE = 0o711;
const KERNEL = "/kernel";
const IMAGES = "/images";
/** Where a jail finds the sockets of its devices: the guest sees its kernel's command line, and no path of ours in it. */
const HOST = "/host";

interface PlacedDrive {
  /** As the jail sees it. */
  readonly path: string;
  readonly readOnly: boolean;
  readonly mount: JailMount | null;
}

const checkConfig = (config: MicroVmConfig): void => {
  if (!/^[A-Za-z0-9-]+$/.test(config.id) || config.id.length > MICROVM_ID_CHARS_MAX)
    throw new Error(
      `MicroVM id ${JSON.stringify(config.id)}: letters, digits and dashes, at most ${String(MICROVM_ID_CHARS_MAX)}`,
    );
  const { memoryMib } = config;
  if (!Number.isInteger(memoryMib) || memoryMib < GUEST_MEMORY_MIB_MIN || memoryMib > GUEST_MEMORY_MIB_MAX)
    throw new Error(
      `MicroVM ${config.id}: ${String(memoryMib)} MiB of memory; ${String(GUEST_MEMORY_MIB_MIN)} to ${String(GUEST_MEMORY_MIB_MAX)} may be`,
    );
};

/** The longest drive that it was configured with and may write to; 0 for none. */
const writableBytesMax = ({ drives }: MicroVmConfig): number =>
  Math.max(0, ...drives.filter(({ readOnly }) => !readOnly).map(({ path }) => statSync(path).size));

/**
 * The longest file a microVM's process has while it boots: its memory, a scratch drive (how long one that is attached later will be
 * is not known yet), or a drive it may write to. When it has its scratch drive it is held to that one's length.
 */
const fileBytesMax = (config: MicroVmConfig): number =>
  Math.max(config.memoryMib * MIB, SCRATCH_BYTES_MAX, writableBytesMax(config));

const rateOf = ({ mbitPerS }: NonNullable<MicroVmConfig["network"]>): NetRate | null =>
  mbitPerS === undefined ? null : netRate(mbitPerS);

interface ServedDevices {
  readonly vsock: VsockDevice;
  readonly net: NetDevice | null;
  readonly mappings: MemoryMappings;
  /** What looks at the guest's memory: to be given up first. */
  readonly attached: DisposableStack;
  /** Of the kernel's command line. */
  readonly sockets: readonly { readonly socket: string; readonly type: number }[];
  /** Resolves when the guest's driver lets go of a device. */
  readonly stopped: Promise<void>;
}

/** Serves the guest's devices. */
const serveDevices = (
  directory: RunDirectory,
  config: MicroVmConfig,
  guest: GuestTurns,
  slices: MemorySlices,
  frames: FrameBatch,
  setup: DisposableStack,
): ServedDevices => {
  const { promise: stopped, resolve } = Promise.withResolvers<void>();
  const mappings = setup.use(new MemoryMappings(slices, config.memoryMib * MIB + MAPPED_MEMORY_BYTES_MORE));
  const attached = setup.use(new DisposableStack());
  const sockets: { socket: string; type: number }[] = [];
  const onEnd = (end: BackendEnd): void => {
    if (end === "stopped") resolve();
  };
  const serve = <Device extends VirtioDevice>(path: string, device: Device): Device => {
    attached.use(new VhostUserBackend({ path, device, mappings, owner: guest, onEnd }));
    sockets.push({ socket: `${HOST}/${basename(path)}`, type: device.type });
    // Detached before its transport goes.
    attached.defer(() => device.detach());
    return setup.use(device);
  };
  const vsock = serve(directory.vsockSocket, new VsockDevice(guest));
  vsock.hold();
  const net =
    config.network === undefined
      ? null
      : serve(directory.netSocket, new NetDevice(frames, config.network.mtu, guest, rateOf(config.network)));
  return { vsock, net, mappings, attached, sockets, stopped };
};

/** MicroVMs as User-mode Linux processes: no virtualisation hardware needed, each pinned to one CPU and jailed. */
export class UmlHypervisor implements Hypervisor {
  readonly name = "uml";
  readonly #options: VmmOptions;
  readonly #cpus: CpuAllocator;
  readonly #users: UserAllocator;
  /** null: not available, with `#cgroupReason`. */
  readonly #cgroups: CgroupLayout | null;
  readonly #cgroupReason: string;
  /** null where CPU time is not controlled. */
  readonly #weight: GroupWeight | null;
  readonly #sharedImages: string | null;
  readonly #scratchTemplates: ScratchTemplates;
  readonly #leftovers: Leftovers;
  readonly #reachable = new Map<string, string>();
  #ownsDirectories = false;
  #filter: Uint8Array | null = null;
  readonly #live = new Set<UmlMicroVm>();
  readonly #slices = new MemorySlices();
  readonly #frames = new FrameBatch();

  constructor(options: Partial<VmmOptions> = {}) {
    this.#options = vmmOptions(options);
    const { clock, onLeft } = this.#options;
    this.#leftovers = new Leftovers(clock, onLeft);
    this.#scratchTemplates = new ScratchTemplates(clock);
    this.#cpus = new CpuAllocator(this.#options.cpus, clock);
    this.#users = new UserAllocator(process.getuid?.() === 0);
    const { sharedImagesDir } = this.#options;
    const images = sharedImagesDir === null ? null : realpathSync(sharedImagesDir);
    // What a jail's user cannot reach cannot be shared; its images are linked one by one then.
    this.#sharedImages = images !== null && isReachable(images) ? images : null;
    [this.#cgroups, this.#cgroupReason] = this.#detect();
    this.#weight = GroupWeight.of(this.#cgroups);
    process.once("exit", () => {
      for (const microVm of this.#live) microVm.abandon();
      this.#leftovers.tryAgain();
    });
  }

  #detect(): [CgroupLayout | null, string] {
    if (!this.#options.cgroups) return [null, "switched off"];
    try {
      return [detectCgroups(), ""];
    } catch (error) {
      return [null, error instanceof Error ? error.message : String(error)];
    }
  }

  /** Throws when a directory of ours is not ours alone. Once that was so nobody else can change it. */
  #takeDirectories(): void {
    if (this.#ownsDirectories) return;
    const { runDir, drivesDir, scratchDir } = this.#options;
    takeOwnDirectory(runDir, DIRECTORY_MODE, "safe");
    for (const directory of [drivesDir, scratchDir]) takeOwnDirectory(directory, DIRECTORY_MODE, "any");
    this.#ownsDirectories = true;
  }

  async probe(): Promise<HypervisorProbe> {
    try {
      this.#takeDirectories();
    } catch (error) {
      return { usable: false, reason: error instanceof Error ? error.message : String(error) };
    }
    const cgroups =
      this.#cgroups === null ? `no cgroups (${this.#cgroupReason})` : `cgroup v${String(this.#cgroups.version)}`;
    return probeUml(this.#options, cgroups, (console, owner, onViolation, setup) => {
      const user = setup.adopt(this.#users.take(), (taken) => this.#users.release(taken));
      return startJail(
        {
          ...this.#jail(),
          mounts: [this.#kernelMount()],
          links: [],
          command: [KERNEL, "--version"],
          console,
          onViolation,
          owner,
          fileBytesMax: MIB,
          cgroup: null,
          cpu: null,
          user,
        },
        setup,
      );
    });
  }

  /**
   * Kills and removes what crashed monitors left behind; returns the ids of their microVMs. Control groups whose processes
   * take their time to end are removed later.
   */
  cleanStale(): string[] {
    const { runDir, drivesDir, scratchDir, clock } = this.#options;
    if (this.#cgroups !== null) new StaleGroups(this.#cgroups, clock).end(staleGroups(this.#cgroups));
    return cleanStale([runDir, drivesDir, scratchDir]);
  }

  async spawn(config: MicroVmConfig): Promise<MicroVm> {
    checkConfig(config);
    this.#takeDirectories();
    const { clock, turns } = this.#options;
    const leftovers = this.#leftovers;
    const failed = Promise.withResolvers<unknown>();
    const guest = new GuestTurns({ id: config.id, clock, turns, onFailure: failed.resolve });
    using setup = new DisposableStack();
    const user = setup.adopt(this.#users.take(), (taken) => this.#users.release(taken));
    const place = setup.use(this.#cpus.take(config.cpu ?? null));
    const directory = setup.use(new RunDirectory(this.#options.runDir, config.id, user, leftovers));
    const links = setup.use(new DriveDirectory(this.#options.drivesDir, config.id, user, leftovers));
    const services = { templates: this.#scratchTemplates, leftovers };
    const scratch = setup.use(new ScratchDirectory(this.#options.scratchDir, config.id, user, services));
    const devices = serveDevices(directory, config, guest, this.#slices, this.#frames, setup);
    const { vsock } = devices;
    const pipe = setup.use(new ConsolePipe(guest, config.onConsole ?? null, config.consoleInput ?? null));
    const drives = config.drives.map((drive, i) => this.#placeDrive(drive, i, links));
    const scratchMib = config.scratchMib ?? null;
    const writable = scratchMib === null ? [] : [scratch.add(scratchMib, drives.length)];
    const cgroup = this.#makeCgroup(config, setup);
    const weight = this.#weight === null ? null : setup.use(this.#weight.join());
    weight?.setShare(CPU_SHARE_BOOT);
    const kernel = umlCommandLine({
      kernel: KERNEL,
      memoryMib: config.memoryMib,
      drives: [...drives, ...writable.map((path) => ({ path, readOnly: false }))],
      init: config.init,
      initArguments: config.initArguments ?? [],
      devices: devices.sockets,
      umlDir: OWN_DIRECTORY,
      name: "uml",
      consoleInput: config.consoleInput !== undefined,
      drivePages: this.#options.drivePages,
    });
    const violated = Promise.withResolvers<Violation>();
    const { pid, pidfd, entered } = await startJail(
      {
        ...this.#jail(),
        mounts: this.#mounts(directory, links, scratch, drives),
        links: [{ path: HOST, target: directory.host }],
        command: kernel,
        console: pipe.descriptors,
        onViolation: violated.resolve,
        owner: guest,
        fileBytesMax: fileBytesMax(config),
        cgroup,
        cpu: place.cpu,
        user,
      },
      setup,
    );
    pipe.started();
    const microVm = new UmlMicroVm({
      guest,
      leftovers,
      id: config.id,
      pid,
      pidfd,
      place,
      driveCount: config.drives.length,
      scratchMib,
      vsock,
      net: devices.net,
      attached: devices.attached,
      mappings: devices.mappings,
      cgroup,
      weight,
      directory,
      drives: links,
      scratch,
      user,
      writableBytesMax: writableBytesMax(config),
      ownDirectory: entered,
      sharedPath: (image) => this.#sharedPath(image),
      resources: setup.move(),
    });
    this.#live.add(microVm);
    guest.own(microVm.exited.then(() => this.#live.delete(microVm)));
    guest.own(devices.stopped.then(() => microVm.poweredOff()));
    // Where all ends that goes wrong in the work for this guest.
    void failed.promise.then((error) => microVm.fail(error));
    guest.own(
      violated.promise.then((violation) => {
        const { cause, detail } = endByViolation(violation);
        microVm.end(cause, detail);
      }),
    );
    // A guest may be up before its spawner is told of it: it is heard when that one has had the time to listen.
    guest.clock.soon(() => vsock.open());
    return microVm;
  }

  /** What is the same for all jails. */
  #jail(): Pick<JailOptions, "bwrap" | "enter" | "filter"> {
    this.#filter ??= assembleFilter(UML_RULES);
    const enter = this.#program(this.#options.jailEnter);
    return { bwrap: this.#options.bwrap, enter, filter: this.#filter };
  }

  #kernelMount(): JailMount {
    return { source: this.#program(this.#options.umlKernel), target: KERNEL, writable: false };
  }

  /** What a jail sees of the host. */
  #mounts(
    directory: RunDirectory,
    links: DriveDirectory,
    scratch: ScratchDirectory,
    drives: readonly PlacedDrive[],
  ): JailMount[] {
    return [
      this.#kernelMount(),
      { source: links.path, target: DRIVES, writable: false },
      // At the same paths as outside: the kernel answers console commands to the path they came from.
      { source: directory.host, target: directory.host, writable: false },
      { source: scratch.path, target: SCRATCH, writable: true },
      ...(this.#sharedImages === null ? [] : [{ source: this.#sharedImages, target: IMAGES, writable: false }]),
      ...drives.flatMap(({ mount }) => (mount === null ? [] : [mount])),
    ];
  }

  #makeCgroup(config: MicroVmConfig, setup: DisposableStack): Cgroup | null {
    if (this.#cgroups === null) return null;
    const memoryBytes = config.memoryMib * MIB + JAIL_MEMORY_OVERHEAD_BYTES;
    return setup.adopt(
      new Cgroup(this.#cgroups, cgroupName(config.id), {
        memoryBytes,
        pids: JAIL_PIDS_MAX,
        cpu: { share: CPU_SHARE_BOOT, hard: false },
      }),
      (made) => {
        this.#leftovers.remove(`The control group of microVM ${config.id}`, () => made.remove());
      },
    );
  }

  /** Where the jail sees a drive: in the shared images, at its own path, or as a link in the drives directory. */
  #placeDrive(drive: Drive, index: number, links: DriveDirectory): PlacedDrive {
    const { readOnly } = drive;
    checkReadable(drive.path);
    const source = realpathSync(drive.path);
    const shared = readOnly ? this.#sharedPath(source) : null;
    if (shared !== null) return { path: shared, readOnly, mount: null };
    if (!isReachable(source)) {
      if (!readOnly) throw new Error(`Drive ${drive.path} is in a directory that others may not enter`);
      return { path: links.add(source, index), readOnly, mount: null };
    }
    const path = `/drive${String(index)}`;
    return { path, readOnly, mount: { source, target: path, writable: !readOnly } };
  }

  /** A program at a path every jail's user can reach: where it is, or a copy. Not in the run directory: it may be noexec. */
  #program(path: string): string {
    const known = this.#reachable.get(path);
    if (known !== undefined) return known;
    const source = realpathSync(path);
    const reachable = isReachable(source) ? source : copyProgram(source, this.#options.drivesDir);
    this.#reachable.set(path, reachable);
    return reachable;
  }

  /** Where the jail sees an image of the shared directory, else null. */
  #sharedPath(image: string): string | null {
    if (this.#sharedImages === null) return null;
    const inside = relative(this.#sharedImages, realpathSync(image));
    return inside === "" || inside.startsWith("..") || /[\s,:]/.test(inside) ? null : `${IMAGES}/${inside}`;
  }
}
