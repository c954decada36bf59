import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as protocol from "./shim-protocol.ts";

/** `RootDrive` → `ROOT_DRIVE`. */
const upper = (name: string): string => name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();

const GROUPS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  TO_SHIM: protocol.ToShim,
  FROM_SHIM: protocol.FromShim,
  CONFIGURE: protocol.ConfigureField,
  INVOKE: protocol.InvokeField,
  SHUTDOWN: protocol.ShutdownField,
  HELLO: protocol.HelloField,
  READY: protocol.ReadyField,
  FAILURE: protocol.FailureField,
  OUTCOME: protocol.FailureOutcome,
  RESPONSE: protocol.ResponseField,
  DONE: protocol.DoneField,
  STATUS: protocol.StatusField,
};

test("native/shim/protocol.h holds the same numbers", () => {
  const expected = new Map<string, number>();
  for (const [name, value] of Object.entries(protocol)) {
    if (typeof value === "number") expected.set(name, value);
  }
  for (const [group, members] of Object.entries(GROUPS)) {
    for (const [name, value] of Object.entries(members)) expected.set(`${group}_${upper(name)}`, value);
  }
  const header = readFileSync(new URL("../../native/shim/protocol.h", import.meta.url), "utf8");
  const actual = new Map<string, number>();
  for (const match of header.matchAll(/^#define (\w+) (0x[0-9a-f]+|\d+)$/gm)) {
    actual.set(match[1] ?? "", Number(match[2]));
  }
  assert.deepEqual(
    [...actual].sort(([a], [b]) => a.localeCompare(b)),
    [...expected].sort(([a], [b]) => a.localeCompare(b)),
  );
});
