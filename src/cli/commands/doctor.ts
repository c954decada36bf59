import type { Command } from "commander";
import { command } from "../program.ts";
export const doctorCommand = (): Command => command("doctor", "…", []);
