import assert from "node:assert/strict";
import { test } from "node:test";
import { Base64Error, Base64Reader, decodeBase64 } from "./base64.ts";
import { seededRandom } from "./random.ts";

const SEED = Number(process.env["HEARTH_SEED"] ?? 1);
const RUNS = 3_000;

const read = (text: string, piece: number): Buffer => {
  const reader = new Base64Reader(Buffer.from(text));
  while (!reader.advance(piece));
  return reader.decoded;
};

test("in pieces of any size, with escapes of any kind, as at once", () => {
  const random = seededRandom(SEED);
  const below = (count: number): number => Math.floor(random() * count);
  const escape = (char: string): string => {
    const kind = below(8);
    if (kind === 0) return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
    return kind < 4 && char === "/" ? "\\/" : char;
  };
  for (let run = 0; run < RUNS; run += 1) {
    const bytes = Buffer.from(Array.from({ length: below(60) }, () => below(256)));
    const base64 = run % 2 === 0 ? bytes.toString("base64") : bytes.toString("base64").replaceAll("=", "");
    const text = run % 3 === 0 ? base64 : Array.from(base64, escape).join("");
    const found = read(text, 7 + below(30));
    assert.ok(found.equals(bytes), `HEARTH_SEED=${SEED}: ${text}`);
    assert.ok(decodeBase64(base64).equals(bytes));
  }
});

test("refuses what is not base64, wherever the pieces end", () => {
  for (const text of [
    "**",
    "QQ==QQ==",
    "Q-_Q",
    "QUJD=A",
    "QUJD\\\\QUJD",
    "QUJD\\nQUJD",
    "QQ=\u00e9",
    "QUJDQUJD===",
    "\\\\\\\\\\\\\\\\",
  ]) {
    for (let piece = 7; piece < 12; piece += 1) assert.throws(() => read(text, piece), Base64Error, text);
    assert.throws(() => decodeBase64(text), Base64Error);
  }
});
