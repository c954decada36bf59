import type { Command } from "commander";
import { usageError } from "../../daemon/errors.ts";
import { command } from "../program.ts";

/** `hearth test`: listed here for the help; the launcher runs it, because it needs what development needs. */
export const testCommand = (): Command =>
  command("test", "Run Hearth's own tests", ["./hearth test"]).action(() => {
    throw usageError("The tests are run by the launcher.", "Call ./hearth test in the repository.");
  });
