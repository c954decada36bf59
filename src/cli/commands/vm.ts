import type { Command } from "commander";
import { command } from "../program.ts";
export const vmCommand = (): Command => command("vm", "…", []);
