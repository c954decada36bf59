import assert from "node:assert/strict";
import { test } from "node:test";
import { GuestConsole } from "./console.ts";

const shown = (...chunks: string[]): { text: string; code: number | null } => {
  let text = "";
  const guest = new GuestConsole((bytes) => (text += Buffer.from(bytes).toString()));
  for (const chunk of chunks) guest.push(Buffer.from(chunk));
  guest.end();
  return { text, code: guest.exitCode };
};

const PANIC = "[    0.020000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300\n[ 0.1] CPU: 0\n";

test("output passes as it is", () => {
  assert.deepEqual(shown("a", "b\n[0.1] boot\n", "prompt# "), { text: "ab\n[0.1] boot\nprompt# ", code: null });
  assert.deepEqual(shown("[ is a test"), { text: "[ is a test", code: null });
});

test("the end of PID 1 is an exit code, in one piece or in many", () => {
  assert.deepEqual(shown(`done\n${PANIC}`), { text: "done\n", code: 3 });
  assert.deepEqual(shown("done\n", PANIC.slice(0, 30), PANIC.slice(30)), { text: "done\n", code: 3 });
});

test("a signal is 128 and its number", () => {
  assert.equal(shown(PANIC.replace("00000300", "0000000b")).code, 139);
});
