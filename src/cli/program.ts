import { Command, InvalidArgumentError, Option } from "commander";
import { isIPv4 } from "node:net";
import { NAME_SERVERS_MAX } from "../wire/limits.ts";
import { NETWORK_MODES } from "../wire/slot.ts";
import { parseRange, rangeText, type AddressRange } from "../worker/network/address-range.ts";
import { opensAnything } from "../worker/network/closed-ranges.ts";
import { createOutput } from "./output.ts";
import type { Output } from "./output.ts";
import { clientSettings, LISTEN_DEFAULT } from "../daemon/settings.ts";
import type { ClientSettings } from "../daemon/settings.ts";

/** Options that every command has. */
export interface CommonOptions {
  readonly json?: boolean;
}

/** Options of the commands that talk to a running Hearth. */
export interface ClientOptions extends CommonOptions {
  readonly endpoint?: string;
  readonly dataDir?: string;
}

/** A command with --json, and its examples under its help. */
export const command = (name: string, summary: string, examples: readonly string[]): Command =>
  new Command(name)
    .summary(summary)
    .description(`${summary}.`)
    .option("--json", "machine-readable output on stdout")
    .showHelpAfterError(`(see \`hearth help ${name}\`)`)
    .addHelpText("after", `\nExamples:\n${examples.map((example) => `  $ ${example}`).join("\n")}`);

/** A command that only holds others, whose options are theirs. */
export const commandGroup = (name: string, summary: string): Command =>
  new Command(name).summary(summary).description(`${summary}.`).showHelpAfterError(`(see \`hearth help ${name}\`)`);

/** A command that talks to a running Hearth. */
export const clientCommand = (name: string, summary: string, examples: readonly string[]): Command =>
  command(name, summary, examples)
    .addOption(
      new Option("--endpoint <url>", `where Hearth listens (else HEARTH_ENDPOINT, else http://${LISTEN_DEFAULT})`),
    )
    .addOption(dataDirOption());

export const dataDirOption = (): Option =>
  new Option("--data-dir <dir>", "Hearth's data directory (else HEARTH_DATA_DIR)").argParser((text: string) => {
    // A script's variable that is not set must not mean the default directory.
    if (text === "") throw new InvalidArgumentError("A directory is expected.");
    return text;
  });

/** The network of functions, or of a bare microVM. */
export const networkOption = (): Option =>
  new Option("--network <mode>", "nat: outbound IPv4 for every microVM; none (default: nat where it can be had)")
    .choices(NETWORK_MODES)
    .env("HEARTH_NETWORK");

export const nameServerOption = (): Option =>
  new Option("--name-server <address>", "DNS server for functions, up to three (default: the host's)")
    .argParser((text: string, previous: readonly string[] | undefined) => {
      const addresses = [...(previous ?? []), ...text.split(",")];
      const wrong = addresses.find((address) => !isIPv4(address) || address.startsWith("127."));
      if (wrong !== undefined) throw new InvalidArgumentError(`${wrong} is no IPv4 address that a guest could reach.`);
      if (addresses.length > NAME_SERVERS_MAX)
        throw new InvalidArgumentError(`At most ${NAME_SERVERS_MAX} are asked by the C library.`);
      return addresses;
    })
    .env("HEARTH_NAME_SERVER");

export const networkAllowOption = (): Option =>
  new Option(
    "--network-allow <cidr>",
    "private, shared, metadata or reserved addresses that functions may reach, such as 10.1.0.0/16 (repeatable)",
  )
    .argParser((text: string, previous: readonly AddressRange[] | undefined) => [
      ...(previous ?? []),
      ...text.split(",").map(rangeToOpen),
    ])
    .env("HEARTH_NETWORK_ALLOW");

const rangeToOpen = (text: string): AddressRange => {
  let range: AddressRange;
  try {
    range = parseRange(text);
  } catch (error) {
    throw new InvalidArgumentError(`${error instanceof Error ? error.message : String(error)}.`);
  }
  if (!opensAnything(range))
    throw new InvalidArgumentError(
      `${rangeText(range)} opens nothing: it must lie in a closed range (docs/network.md), and some are never opened.`,
    );
  return range;
};

/** For commander: a whole number within bounds. */
export const wholeNumber =
  (from: number, to: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < from || value > to) {
      throw new InvalidArgumentError(`A whole number from ${from} to ${to} is expected.`);
    }
    return value;
  };

/** For commander: parses a decimal number over 0 and up to `to`. */
export const positiveNumber =
  (to: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+(\.\d+)?$/.test(text) || value <= 0 || value > to) {
      throw new InvalidArgumentError(`A number over 0 and up to ${to} is expected.`);
    }
    return value;
  };

/** For commander: collects a repeated option. */
export const repeated = (value: string, previous: readonly string[] | undefined): readonly string[] => [
  ...(previous ?? []),
  value,
];

export const outputOf = (options: CommonOptions): Output => createOutput(options.json === true);

export const settingsOf = (options: ClientOptions): ClientSettings => clientSettings(options, process.env);
