import assert from "node:assert/strict";
import { test } from "node:test";
import { visible, visibleButColours, visibleJson } from "./visible.ts";

const TITLE = "\u001b]0;owned\u0007";

test("what would command a terminal is written out", () => {
  assert.equal(visible(`a${TITLE}b`), "a\\x1b]0;owned\\x07b");
  assert.equal(visible("\u009b2J\u007f\u0008"), "\\x9b2J\\x7f\\x08");
  assert.equal(visible("user\u202etxt.exe\u2066"), "user\\u202etxt.exe\\u2066");
  assert.equal(visible("a\rb"), "a\\x0db");
});

test("text stays as it is: tabs, lines, and letters of all the world", () => {
  const text = "tab\tline\nнить 糸 👩‍👩‍👧 ü";
  assert.equal(visible(text), text);
  assert.equal(visible("line\r\n"), "line\n");
});

test("colours of ours stay, and nothing else that begins with ESC", () => {
  assert.equal(
    visibleButColours(`\u001b[31mred\u001b[39m ${TITLE}\u001b[2J`),
    "\u001b[31mred\u001b[39m \\x1b]0;owned\\x07\\x1b[2J",
  );
});

test("JSON stays JSON of the same value", () => {
  const value = { text: `${TITLE}\u009b\u007f\u202e` };
  const json = visibleJson(value);
  assert.match(json, /^[ -~]+$/);
  assert.deepEqual(JSON.parse(json), value);
});
