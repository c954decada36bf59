import type { Command } from "commander";
import { command } from "../program.ts";
export const benchCommand = (): Command => command("bench", "…", []);
