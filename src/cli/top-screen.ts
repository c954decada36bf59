import type { SlotInfo, SlotState } from "../wire/slot.ts";
import { age, bytes, cut, table } from "./output.ts";
import type { Output } from "./output.ts";
import { DURATIONS, sumOf } from "./top-figures.ts";
import type { Figures, Quantiles, Reading } from "./top-figures.ts";

/** What the slots are sorted by, with the key that chooses it. */
export const SORTS = { s: "state", c: "cpu", m: "memory", n: "calls", a: "age" } as const;
export type Sort = (typeof SORTS)[keyof typeof SORTS];

export interface View {
  readonly reading: Reading;
  /** Of the last seconds; in a table that is printed once, of all the time since the start. */
  readonly figures: Figures;
  readonly sort: Sort;
  readonly live: boolean;
  /** Size of the screen; endless when it is no terminal. */
  readonly rows: number;
  readonly columns: number;
}

type Colours = Output["colours"];

const ORDER: Readonly<Record<SlotState, number>> = { Busy: 0, Init: 1, Idle: 2, Dead: 3 };
const MB = 1024 * 1024;

const ms = (value: number | null): string => {
  if (value === null) return "-";
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;
};

const perSecond = (value: number): string => `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}/s`;

const percent = (cpus: number): string => `${(cpus * 100).toFixed(0)} %`;

/** By the chosen column, the most first; equals by state, function and id, so that lines keep their places. */
export const sortSlots = (slots: readonly SlotInfo[], figures: Figures, sort: Sort): SlotInfo[] => {
  const weight: Readonly<Record<Sort, (slot: SlotInfo) => number>> = {
    state: (slot) => -ORDER[slot.state],
    cpu: (slot) => Math.round((figures.slotCpus.get(slot.slotId) ?? 0) * 100),
    memory: (slot) => Math.round(slot.memoryBytes / MB),
    calls: (slot) => slot.invocations,
    age: (slot) => -slot.createdAtMs,
  };
  return [...slots].sort(
    (a, b) =>
      weight[sort](b) - weight[sort](a) ||
      ORDER[a.state] - ORDER[b.state] ||
      a.functionArn.localeCompare(b.functionArn) ||
      a.slotId.localeCompare(b.slotId),
  );
};

const head = ({ reading, figures }: View, { bold, dim, yellow, red }: Colours): string[] => {
  const { stats, slots } = reading;
  const { worker } = stats;
  const count = (state: SlotState): number => slots.filter((slot) => slot.state === state).length;
  const waiting = sumOf(reading, "hearth_events_waiting");
  const { rates, pool } = figures;
  const measured = slots.reduce((sum, slot) => sum + slot.memoryBytes, 0);
  const used = worker.memoryBytesTotal - worker.memoryBytesAvailable;
  const when = (ofMs: number): string => age(worker.atMs - ofMs);
  return [
    `${bold("Hearth")} ${stats.endpoint}, up ${when(stats.startedAtMs)}, ${stats.hypervisor.name}${worker.draining ? yellow("  draining") : ""}`,
    `${dim("slots")}  ${count("Busy")} busy, ${count("Init")} init, ${count("Idle")} idle, at most ${worker.slotsMax}   ` +
      `${dim("pool")}  ${sumOf(reading, "hearth_pool_ready")} ready, ${pool.hits} hits, ${pool.misses} misses   ` +
      `${dim("queue")}  ${waiting}`,
    `${dim("rate")}   ${perSecond(rates.invocations)} invocations, ${perSecond(rates.coldStarts)} cold, ` +
      `${rates.errors > 0 ? red(`${perSecond(rates.errors)} errors`) : "no errors"}, ` +
      (rates.throttles > 0 ? yellow(`${perSecond(rates.throttles)} throttled`) : "none throttled"),
    `${dim("host")}   CPU ${percent(worker.cpuShare)} of ${worker.cpus}, Hearth ${percent(figures.processCpus)}; ` +
      `memory ${bytes(used)} of ${bytes(worker.memoryBytesTotal)}, slots ${bytes(measured)} (nominal ${bytes(worker.memoryMbCommitted * MB)})`,
  ];
};

const durations = ({ figures, live }: View, { dim }: Colours): string => {
  const over = live ? `last ${Math.max(1, Math.round(figures.seconds))} s` : "since start";
  const heads = [over, "COUNT", "P50", "P99"].map((text) => dim(text));
  return table([heads, ...DURATIONS.map((name) => durationRow(name, figures.durations[name]))], [1, 2, 3]);
};

const durationRow = (name: string, of: Quantiles): string[] => [name, String(of.count), ms(of.p50Ms), ms(of.p99Ms)];

const slotRow = (slot: SlotInfo, { reading, figures }: View, colours: Colours): string[] => {
  const nowMs = reading.stats.worker.atMs;
  const colour = { Busy: colours.green, Init: colours.yellow, Idle: String, Dead: colours.gray };
  return [
    slot.slotId.slice(0, 12),
    slot.functionArn.split(":").at(-1) ?? "",
    slot.version,
    colour[slot.state](slot.state),
    age(nowMs - slot.since),
    age(nowMs - slot.createdAtMs),
    String(slot.invocations),
    percent(figures.slotCpus.get(slot.slotId) ?? 0),
    String(slot.cpu),
    slot.memoryBytes === 0 ? "-" : bytes(slot.memoryBytes),
    `${slot.memoryMb} MB`,
  ];
};

/** The whole screen, as lines no wider than it and no more than it has. */
export const drawTop = (view: View, colours: Colours): string[] => {
  const { dim } = colours;
  const keys = Object.entries(SORTS).map(([key, sort]) => (sort === view.sort ? `[${key}] ${sort}` : `${key} ${sort}`));
  const top = [...head(view, colours), "", ...durations(view, colours).split("\n"), ""];
  const foot = view.live ? [dim(`sort: ${keys.join("  ")}   q quit`)] : [];
  const sorted = sortSlots(view.reading.slots, view.figures, view.sort);
  const room = Math.max(1, view.rows - top.length - foot.length - 1);
  // One line says how many are not shown.
  const shown = sorted.length > room ? sorted.slice(0, room - 1) : sorted;
  const heads = ["SLOT", "FUNCTION", "VERSION", "STATE", "FOR", "AGE", "CALLS", "CPU", "ON", "MEMORY", "LIMIT"];
  const rows = [heads.map((each) => dim(each)), ...shown.map((slot) => slotRow(slot, view, colours))];
  const more = sorted.length > shown.length ? [dim(`and ${sorted.length - shown.length} more`)] : [];
  const lines = [...top, ...table(rows, [4, 5, 6, 7, 8, 9, 10]).split("\n"), ...more, ...foot];
  return lines.slice(0, view.rows).map((line) => cut(line, view.columns));
};
