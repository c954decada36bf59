import type { Command } from "commander";
import { command } from "../program.ts";
export const demoCommand = (): Command => command("demo", "…", []);
