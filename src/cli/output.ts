import pc from "picocolors";
import { visibleButColours, visibleJson } from "../lib/visible.ts";

/** What a command may ask of the terminal. */
export interface Output {
  /** True when machines read: one JSON document, nothing else, on stdout. */
  readonly json: boolean;
  /** stdout is a terminal. */
  readonly terminal: boolean;
  readonly colours: ReturnType<typeof pc.createColors>;
  /** A line on stdout, for people; silent with --json. Nothing in it but our colours commands a terminal. */
  line(text?: string): void;
  /** A line on stderr: progress and warnings, for people; silent with --json. */
  note(text: string): void;
  /** The answer for machines; silent without --json. */
  data(value: unknown): void;
}

/** Output to this process's streams. Colours only on a terminal, and never against NO_COLOR. */
export const createOutput = (json: boolean): Output => {
  const terminal = process.stdout.isTTY;
  const noColour = (process.env["NO_COLOR"] ?? "") !== "" || process.env["TERM"] === "dumb";
  return {
    json,
    terminal,
    colours: pc.createColors(terminal && !noColour),
    line: (text = "") => {
      if (!json) process.stdout.write(`${visibleButColours(text)}\n`);
    },
    note: (text) => {
      if (!json) process.stderr.write(`${visibleButColours(text)}\n`);
    },
    data: (value) => {
      if (json) process.stdout.write(`${visibleJson(value)}\n`);
    },
  };
};

// Colours take no room on the screen.
// eslint-disable-next-line no-control-regex
const width = (text: string): number => text.replaceAll(/\u001b\[[0-9;]*m/g, "").length;

/** As much of a line as fits into so many columns; what colours it is kept whole. */
export const cut = (text: string, columns: number): string => {
  if (width(text) <= columns) return text;
  let [room, result] = [columns, ""];
  // eslint-disable-next-line no-control-regex
  for (const part of text.split(/(\u001b\[[0-9;]*m)/)) {
    if (part.startsWith("\u001b")) result += part;
    else {
      result += part.slice(0, room);
      room = Math.max(0, room - part.length);
    }
  }
  return result;
};

/** Columns side by side, two spaces apart; columns named in `right` (by index) are set flush right. */
export const table = (rows: readonly (readonly string[])[], right: readonly number[] = []): string => {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, column) => (widths[column] = Math.max(widths[column] ?? 0, width(cell))));
  const pad = (cell: string, column: number): string => {
    const space = " ".repeat((widths[column] ?? 0) - width(cell));
    return right.includes(column) ? space + cell : cell + space;
  };
  return rows.map((row) => row.map(pad).join("  ").trimEnd()).join("\n");
};

/** 3s, 4m 10s, 2h 5m, 3d 1h */
export const age = (durationMs: number): string => {
  const seconds = Math.max(0, Math.floor(durationMs / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86_400)}d ${Math.floor((seconds % 86_400) / 3600)}h`;
};

/** 512 B, 4.1 MB … in steps of 1024, as memory is counted. */
export const bytes = (count: number): string => {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
};
