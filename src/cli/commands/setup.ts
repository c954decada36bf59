import type { Command } from "commander";
import { command, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";

/** `hearth setup`: the launcher has installed and built everything before this runs, so it only says so. */
export const setupCommand = (): Command =>
  command("setup", "Install and build what Hearth needs on this machine", ["./hearth setup"]).action(
    (options: CommonOptions) => {
      const output = outputOf(options);
      output.data({ ready: true });
      output.line("Hearth is set up. See it work: hearth demo");
    },
  );
