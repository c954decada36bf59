import type { Command } from "commander";
import { setTimeout as sleep } from "node:timers/promises";
import { getControl, getSlots, getStats } from "../../daemon/control.ts";
import type { Output } from "../output.ts";
import { command, dataDirOption, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { Screen } from "../screen.ts";
import { dataDirectory } from "../../daemon/settings.ts";
import { figuresBetween, readingOf } from "../top-figures.ts";
import type { Reading } from "../top-figures.ts";
import { drawTop, SORTS } from "../top-screen.ts";
import type { Sort } from "../top-screen.ts";

interface TopOptions extends CommonOptions {
  readonly dataDir?: string;
  readonly once?: boolean;
}

const REFRESH_MS = 1_000;
/** What "lately" means in the live view. */
const WINDOW_MS = 10_000;
const QUIT_KEYS: ReadonlySet<string> = new Set(["q", "Q", "\u0003", "\u001b"]);

/** `hearth top`: figures and slots, live. Once only when piped or with --json. */
export const topCommand = (): Command =>
  command("top", "Show what a running Hearth does, live: rates, durations, slots", [
    "hearth top",
    "hearth top --once",
    "hearth top --json",
  ])
    .option("--once", "show it once and end")
    .addOption(dataDirOption())
    .action(run);

const run = async (options: TopOptions): Promise<void> => {
  const output = outputOf(options);
  const dataDir = dataDirectory(options.dataDir, process.env);
  const first = await read(dataDir);
  if (output.json || !output.terminal || options.once === true) return printOnce(output, first);
  await watch(output, dataDir, first);
};

const read = async (dataDir: string): Promise<Reading> => {
  const [slots, stats, metrics] = await Promise.all([
    getSlots(dataDir),
    getStats(dataDir),
    getControl(dataDir, "/metrics"),
  ]);
  return readingOf(stats, slots, metrics);
};

const printOnce = (output: Output, reading: Reading): void => {
  const figures = figuresBetween(null, reading);
  const { stats, slots } = reading;
  output.data({ stats, slots, figures: { ...figures, slotCpus: Object.fromEntries(figures.slotCpus) } });
  const size = { rows: Number.POSITIVE_INFINITY, columns: Number.POSITIVE_INFINITY };
  output.line(drawTop({ reading, figures, sort: "state", live: false, ...size }, output.colours).join("\n"));
};

/** Until a key or a signal ends it, or there is no Hearth any more. */
const watch = async (output: Output, dataDir: string, first: Reading): Promise<void> => {
  const readings = [first];
  let sort: Sort = "state";
  const quit = new AbortController();
  const draw = (): void => {
    const latest = readings.at(-1) ?? first;
    const figures = figuresBetween(readings.length > 1 ? (readings[0] ?? null) : null, latest);
    const { rows, columns } = screen;
    const live = readings.length > 1;
    screen.show(drawTop({ reading: latest, figures, sort, live, rows, columns }, output.colours));
  };
  using screen = new Screen({
    key: (key) => {
      if (QUIT_KEYS.has(key)) return quit.abort();
      const chosen = Object.entries(SORTS).find(([each]) => each === key);
      if (chosen === undefined) return;
      sort = chosen[1];
      draw();
    },
    resize: draw,
  });
  while (!quit.signal.aborted) {
    draw();
    // Aborted is how it ends.
    await sleep(REFRESH_MS, undefined, { signal: quit.signal }).catch(() => {});
    if (quit.signal.aborted) return;
    const next = await read(dataDir);
    readings.push(next);
    while (readings.length > 2 && next.atMs - (readings[0]?.atMs ?? 0) > WINDOW_MS) readings.shift();
  }
};
