import { Command, CommanderError } from "commander";
import { backupCommand } from "./commands/backup.ts";
import { benchCommand } from "./commands/bench.ts";
import { checkCommand } from "./commands/check.ts";
import { demoCommand } from "./commands/demo.ts";
import { deployCommand } from "./commands/deploy.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { invokeCommand } from "./commands/invoke.ts";
import { keysCommand } from "./commands/keys.ts";
import { logsCommand } from "./commands/logs.ts";
import { lsCommand } from "./commands/ls.ts";
import { restoreCommand } from "./commands/restore.ts";
import { rmCommand } from "./commands/rm.ts";
import { serviceCommand } from "./commands/service.ts";
import { setupCommand } from "./commands/setup.ts";
import { testCommand } from "./commands/test.ts";
import { topCommand } from "./commands/top.ts";
import { upCommand } from "./commands/up.ts";
import { vmCommand } from "./commands/vm.ts";
import { inspect } from "node:util";
import { visible } from "../lib/visible.ts";
import { describeError, EXIT_FAILURE, EXIT_OK, EXIT_USAGE } from "../daemon/errors.ts";
import { version } from "../daemon/settings.ts";

const program = (): Command => {
  const root = new Command("hearth")
    .description("AWS Lambda that you own: a microVM for every concurrent invocation, on any Linux machine.")
    .version(version(), "-V, --version")
    .helpCommand("help [command]", "help for a command")
    .showHelpAfterError("(see `hearth help`)")
    .addHelpText("after", "\nFirst steps:\n  $ hearth demo        # see it work\n  $ hearth up          # serve");
  const commands = [
    setupCommand(),
    demoCommand(),
    upCommand(),
    deployCommand(),
    invokeCommand(),
    logsCommand(),
    lsCommand(),
    rmCommand(),
    keysCommand(),
    serviceCommand(),
    topCommand(),
    doctorCommand(),
    backupCommand(),
    restoreCommand(),
    checkCommand(),
    vmCommand(),
    benchCommand(),
    testCommand(),
  ];
  for (const each of commands) {
    // `hearth help` knows the first word only.
    for (const one of each.commands) one.showHelpAfterError(`(see \`hearth ${each.name()} ${one.name()} --help\`)`);
    root.addCommand(overrideExit(each));
  }
  return overrideExit(root);
};

/** Commander must throw instead of ending the process: the exit code is ours. Holds for subcommands of subcommands too. */
const overrideExit = (command: Command): Command => {
  for (const each of command.commands) overrideExit(each);
  return command.exitOverride();
};

/** Prints an error as one sentence and what to do; with HEARTH_DEBUG the stack too. Returns the exit code. */
const fail = (error: unknown): number => {
  // Commander has printed already; help and version asked for are no errors.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
  const { message, hint, exitCode } = describeError(error);
  process.stderr.write(visible(`hearth: ${message}\n${hint === null ? "" : `        ${hint}\n`}`));
  if ((process.env["HEARTH_DEBUG"] ?? "") !== "") process.stderr.write(`${visible(inspect(error))}\n`);
  return exitCode;
};

// A reader that went away (`hearth ls | head -1`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : EXIT_FAILURE));

// What cannot be told is not worth an end: a service goes on without anybody who reads.
process.stderr.on("error", () => undefined);

try {
  await program().parseAsync(process.argv);
} catch (error) {
  // Not left to the event loop: a start that failed half-way may still have something in hand.
  process.exit(fail(error));
}
