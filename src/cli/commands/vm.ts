import { Command, Option } from "commander";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { AddressRange } from "../../worker/network/address-range.ts";
import { openNetworks } from "../../worker/network/open.ts";
import type { SlotNetwork } from "../../worker/network/slot-network.ts";
import { selectHypervisor } from "../../vmm/hypervisors/select.ts";
import type { MicroVm, MicroVmExit } from "../../vmm/microvm.ts";
import type { NetworkMode } from "../../wire/slot.ts";
import { GuestConsole } from "../console.ts";
import { CliError, EXIT_FAILURE, EXIT_OK, usageError } from "../../daemon/errors.ts";
import { HYPERVISORS } from "../../daemon/hearth-options.ts";
import type { HypervisorChoice } from "../../daemon/hearth-options.ts";
import { command, nameServerOption, networkAllowOption, networkOption, outputOf, wholeNumber } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { IMAGES_DIRECTORY } from "../../daemon/settings.ts";

interface RunOptions extends CommonOptions {
  readonly kernel?: string;
  readonly image: string;
  readonly memory: number;
  readonly cpu?: number;
  readonly init: string;
  readonly hypervisor: HypervisorChoice;
  readonly network: NetworkMode;
  readonly nameServer?: readonly string[];
  readonly networkAllow?: readonly AddressRange[];
}

/** Ctrl-]: ends the microVM, as in telnet; everything else goes to the guest. */
const ESCAPE = 0x1d;
const MEMORY_MIB_MAX = 65_536;
const EXIT_KILLED = 130;

/** `hearth vm`: microVMs without a function around them. */
export const vmCommand = (): Command => {
  const run = command("run", "Boot a bare microVM with its console attached; exits as the guest's first program does", [
    "hearth vm run                                   # a shell in the base image",
    "hearth vm run --image nodejs24.x --memory 256",
    "hearth vm run --init /bin/ls -- -l /etc",
    "echo 'echo hello from a guest; exit' | hearth vm run",
    "hearth vm run --network nat --image ./root.erofs --init /sbin/init   # with eth0 that leads out",
    "hearth vm run --kernel ./linux --image ./root.erofs --init /sbin/init",
  ])
    .argument("[arguments...]", "for the program given with --init; no spaces in any of them")
    .option("--kernel <file>", "guest kernel (else the built one)")
    .option("--image <name|file>", "root file system: an EROFS image, or the name of a built one", "base")
    .option("--memory <MB>", "memory of the guest", wholeNumber(16, MEMORY_MIB_MAX), 128)
    .option("--cpu <number>", "host CPU it lives on", wholeNumber(0, 4095))
    .option("--init <path>", "program that the guest runs as PID 1", "/bin/sh")
    .addOption(new Option("--hypervisor <name>", "what it runs on").choices(HYPERVISORS).default("auto"))
    .addOption(networkOption().default("none", "none"))
    .addOption(nameServerOption())
    .addOption(networkAllowOption())
    .action(runMicroVm);
  return new Command("vm")
    .summary("Run microVMs without functions")
    .description("Run microVMs without functions.")
    .addCommand(run);
};

const runMicroVm = async (args: readonly string[], options: RunOptions): Promise<void> => {
  const output = outputOf(options);
  const image = await imagePath(options.image);
  const { hypervisor } = await selectHypervisor(
    options.hypervisor,
    options.kernel === undefined ? {} : { umlKernel: options.kernel },
  );
  const startedMs = performance.now();
  // stdout is the answer when machines read it.
  const screen = output.json ? process.stderr : process.stdout;
  const guest = new GuestConsole((bytes) => screen.write(bytes));
  await using owned = new AsyncDisposableStack();
  const network = await networkOf(options, owned);
  await using vm = await hypervisor.spawn({
    id: `run-${randomUUID().slice(0, 8)}`,
    memoryMib: options.memory,
    drives: [{ path: image, readOnly: true }],
    init: options.init,
    initArguments: args,
    ...(options.cpu === undefined ? {} : { cpu: options.cpu }),
    ...(network === null ? {} : { network: { mtu: network.mtu } }),
    onConsole: (chunk) => guest.push(chunk),
    consoleInput: process.stdin,
  });
  if (network !== null) vm.attachNetwork(network.slot.port);
  const exit = await attached(vm);
  guest.end();
  output.data({ ...exit, guestExitCode: guest.exitCode, durationMs: Math.round(performance.now() - startedMs) });
  if (exit.cause !== "guest" && guest.exitCode === null) output.note(`hearth: The microVM ended: ${exit.detail}`);
  process.exitCode = guest.exitCode ?? exitCodeOf(exit);
};

/** A network such as a slot has; the guest is told how to configure it, for nobody does that in there. */
const networkOf = async (
  { network, nameServer, networkAllow }: RunOptions,
  owned: AsyncDisposableStack,
): Promise<{ readonly slot: SlotNetwork; readonly mtu: number } | null> => {
  const { networks } = await openNetworks(network, nameServer ?? null, networkAllow ?? []);
  if (networks === null) return null;
  owned.use(networks);
  const slot = owned.use(await networks.take());
  const { address, gateway, nameServers } = slot.guest;
  process.stderr.write(`(eth0: address ${address}, gateway ${gateway}, name servers ${nameServers.join(", ")})\n`);
  return { slot, mtu: networks.mtu };
};

/** For a guest whose PID 1 did not end: its own power-off is success; being ended by the user is what a shell calls 130; all else is failure. */
const exitCodeOf = (exit: MicroVmExit): number => {
  if (exit.cause === "guest") return EXIT_OK;
  return exit.cause === "killed" ? EXIT_KILLED : EXIT_FAILURE;
};

/** Waits for the end of the microVM, with the terminal handed over to it: Ctrl-] or a signal ends it. */
const attached = async (vm: MicroVm): Promise<MicroVmExit> => {
  const end = (): void => void vm.kill("ended at the console");
  const onKey = (chunk: Buffer): void => {
    if (chunk.includes(ESCAPE)) end();
  };
  process.on("SIGINT", end);
  process.on("SIGTERM", end);
  if (process.stdin.isTTY) {
    process.stderr.write("(Ctrl-] ends the microVM)\n");
    process.stdin.setRawMode(true);
    process.stdin.on("data", onKey);
  }
  try {
    return await vm.exited;
  } finally {
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdin.off("data", onKey);
    process.stdin.destroy();
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  }
};

/** A path as it is; a name as the image set-up built for it. */
const imagePath = async (given: string): Promise<string> => {
  if (given.includes("/")) return given;
  const text = await readFile(join(IMAGES_DIRECTORY, "manifest.json"), "utf8").catch(() => {
    throw new CliError("No image was built yet.", "Run ./hearth setup, or give the path of an image.");
  });
  const manifest = JSON.parse(text) as Record<string, { readonly file?: string }>;
  const file = manifest[given]?.file;
  if (file !== undefined) return join(IMAGES_DIRECTORY, file);
  const names = Object.entries(manifest).flatMap(([name, entry]) => (entry.file === undefined ? [] : [name]));
  throw usageError(`There is no image ${given}.`, `There are ${names.join(", ")}; or give a path with a slash in it.`);
};
