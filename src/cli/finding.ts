import { readFile } from "node:fs/promises";

/** What one look at the machine found. `fix` says what to do when it is not ok. */
export interface Finding {
  readonly name: string;
  readonly level: "ok" | "warn" | "fail";
  readonly detail: string;
  readonly fix: string | null;
}

export const ok = (name: string, detail: string): Finding => ({ name, level: "ok", detail, fix: null });
export const warn = (name: string, detail: string, fix: string): Finding => ({ name, level: "warn", detail, fix });
export const fail = (name: string, detail: string, fix: string): Finding => ({ name, level: "fail", detail, fix });

export const textOf = (path: string): Promise<string | null> => readFile(path, "utf8").catch(() => null);
