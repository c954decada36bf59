import type { Command } from "commander";
import { setTimeout as sleep } from "node:timers/promises";
import type { SlotInfo } from "../../wire/slot.ts";
import { getSlots, getStats } from "../control.ts";
import type { ControlStats } from "../control.ts";
import { age, bytes, table } from "../output.ts";
import type { Output } from "../output.ts";
import { command, dataDirOption, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { dataDirectory } from "../settings.ts";

interface TopOptions extends CommonOptions {
  readonly dataDir?: string;
  readonly once?: boolean;
}

const REFRESH_MS = 1000;
const CLEAR = "\u001b[H\u001b[2J";

/** `hearth top`: the slots, live. Once only when piped or with --json. */
export const topCommand = (): Command =>
  command("top", "Show the slots of a running Hearth, live", ["hearth top", "hearth top --once", "hearth top --json"])
    .option("--once", "show them once and end")
    .addOption(dataDirOption())
    .action(run);

const run = async (options: TopOptions): Promise<void> => {
  const output = outputOf(options);
  const dataDir = dataDirectory(options.dataDir, process.env);
  const once = output.json || !output.terminal || options.once === true;
  for (;;) {
    const [slots, stats] = await Promise.all([getSlots(dataDir), getStats(dataDir)]);
    output.data({ stats, slots });
    const screen = draw(output, slots, stats, once ? Number.POSITIVE_INFINITY : process.stdout.rows - 5);
    output.line(once ? screen : CLEAR + screen);
    if (once) return;
    await sleep(REFRESH_MS);
  }
};

const ORDER: Readonly<Record<SlotInfo["state"], number>> = { Busy: 0, Init: 1, Idle: 2, Dead: 3 };

const draw = (output: Output, slots: readonly SlotInfo[], stats: ControlStats, rows: number): string => {
  const { bold, dim, green, yellow, gray } = output.colours;
  const nowMs = Date.now();
  const { worker } = stats;
  const head =
    `${bold("Hearth")} at ${stats.endpoint}, up ${age(nowMs - stats.startedAtMs)}, ${stats.hypervisor.name}\n` +
    `${worker.slots} of ${worker.slotsMax} slots, ${worker.busy} busy; ` +
    `host memory ${bytes(worker.memoryBytesAvailable)} free of ${bytes(worker.memoryBytesTotal)}` +
    `${worker.draining ? yellow("; draining") : ""}\n`;
  const colour = { Busy: green, Init: yellow, Idle: String, Dead: gray };
  const sorted = [...slots].sort(
    (a, b) => ORDER[a.state] - ORDER[b.state] || a.functionArn.localeCompare(b.functionArn),
  );
  const lines = sorted
    .slice(0, rows)
    .map((slot) => [
      slot.slotId.slice(0, 13),
      slot.functionArn.split(":").at(-1) ?? "",
      slot.version,
      colour[slot.state](slot.state),
      age(nowMs - slot.since),
      age(nowMs - slot.createdAtMs),
      String(slot.invocations),
      slot.memoryBytes === 0 ? "-" : bytes(slot.memoryBytes),
      `${slot.memoryMb} MB`,
      String(slot.cpu),
    ]);
  const heads = ["SLOT", "FUNCTION", "VERSION", "STATE", "FOR", "AGE", "CALLS", "MEMORY", "LIMIT", "CPU"];
  const more = sorted.length > rows ? `\n${dim(`and ${sorted.length - rows} more`)}` : "";
  return `${head}\n${table([heads.map((each) => dim(each)), ...lines], [4, 5, 6, 7, 8, 9])}${more}`;
};
