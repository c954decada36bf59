import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { describe, it } from "node:test";
import { JsonLimitError, JsonScanner, JsonSyntaxError } from "./json-scanner.ts";
import { seededRandom } from "./random.ts";
import type { Random } from "./random.ts";

const DOCUMENTS = 4_000;
const MUTANTS_EACH = 8;
/** Bytes that mean something to the language, and two that may not be in it. */
const TOKENS = '{}[]:,"\\-+.eE0159tfnu \u0000\u001f';
const SEED = Number(process.env["HEARTH_SEED"] ?? 1);

const accepts = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

/** Scans in pieces of the given size. False for a syntax error; anything else that is thrown is a failure. */
const scans = (bytes: Uint8Array, piece: number = Number.POSITIVE_INFINITY): boolean => {
  const scanner = new JsonScanner(bytes);
  try {
    while (!scanner.advance(piece));
    return true;
  } catch (error) {
    assert.ok(error instanceof JsonSyntaxError);
    assert.ok(error.at <= bytes.byteLength);
    return false;
  }
};

class Generator {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.below(items.length)] ?? items[0];
  }

  #space(): string {
    return this.below(4) === 0 ? this.pick([" ", "\n", "\t", "\r", "  "]) : "";
  }

  #string(): string {
    const parts = Array.from({ length: this.below(5) }, () =>
      this.pick([
        "a",
        "Code",
        "é",
        "😀",
        '\\"',
        "\\\\",
        "\\/",
        "\\n",
        "\\u00e9",
        "\\uD83D",
        "\u007f",
        "plain text",
        "\u2028",
      ]),
    );
    return `"${parts.join("")}"`;
  }

  key(): string {
    return this.pick(['"Code"', '"ZipFile"', '"\\u0043ode"', '"x"', this.#string()]);
  }

  #number(): string {
    const whole = this.pick(["0", "-0", "7", "-12", "1234567890123456789012345"]);
    return whole + this.pick(["", "", ".5", ".000"]) + this.pick(["", "", "e9", "E+10", "e-400"]);
  }

  value(depth: number): string {
    const kind = this.below(depth > 4 ? 5 : 8);
    const inner = ((): string => {
      if (kind < 2) return this.#string();
      if (kind < 4) return this.#number();
      if (kind === 4) return this.pick(["true", "false", "null"]);
      const count = this.below(4);
      if (kind === 5)
        return `[${Array.from({ length: count }, () => this.value(depth + 1)).join(",")}${this.#space()}]`;
      const member = (): string => `${this.#space()}${this.key()}${this.#space()}:${this.value(depth + 1)}`;
      return `{${Array.from({ length: count }, member).join(",")}${this.#space()}}`;
    })();
    return `${this.#space()}${inner}${this.#space()}`;
  }

  /** One to three small damages: a byte changed, left out, doubled, or one of the language's own put in. */
  mutant(bytes: Uint8Array): Uint8Array {
    let damaged = [...bytes];
    for (let times = 1 + this.below(3); times > 0; times -= 1) {
      const at = this.below(damaged.length + 1);
      const token = TOKENS.charCodeAt(this.below(TOKENS.length));
      damaged =
        [
          () => damaged.with(Math.min(at, Math.max(0, damaged.length - 1)), this.below(256)),
          () => damaged.toSpliced(at, 1),
          () => damaged.toSpliced(at, 0, token),
          () => damaged.slice(0, at),
          () => [...damaged, ...damaged.slice(at)],
        ][this.below(5)]?.() ?? damaged;
      if (damaged.length === 0) return new Uint8Array();
    }
    return Uint8Array.from(damaged);
  }
}

const failure = (text: string): string => {
  try {
    new JsonScanner(Buffer.from(text)).advance();
    return "none";
  } catch (error) {
    return error instanceof Error ? error.message : "";
  }
};

describe("JsonScanner", () => {
  it("accepts exactly what JSON.parse accepts, in pieces of any size", () => {
    const make = new Generator(seededRandom(SEED));
    let [good, bad] = [0, 0];
    for (let n = 0; n < DOCUMENTS; n += 1) {
      const whole = Buffer.from(make.value(0));
      assert.ok(scans(whole), `HEARTH_SEED=${SEED}: ${whole.toString()}`);
      for (let mutants = 0; mutants < MUTANTS_EACH; mutants += 1) {
        const bytes = make.mutant(whole);
        if (!isUtf8(bytes)) continue;
        const text = Buffer.from(bytes).toString();
        const expected = accepts(text);
        if (expected) good += 1;
        else bad += 1;
        const what = `HEARTH_SEED=${SEED}: ${JSON.stringify(text)}`;
        assert.equal(scans(bytes), expected, what);
        assert.equal(scans(bytes, 1 + make.below(7)), expected, `${what} in pieces`);
      }
    }
    assert.ok(good > DOCUMENTS / 4 && bad > DOCUMENTS, `${good} good mutants and ${bad} bad ones say little`);
  });

  it("finds the string that JSON.parse would give the followed member", () => {
    const make = new Generator(seededRandom(SEED + 1));
    let found = 0;
    for (let n = 0; n < DOCUMENTS; n += 1) {
      const members = Array.from({ length: 1 + make.below(3) }, () => `${make.key()}:${make.value(1)}`);
      const text = `{${members.join(",")},"Code":${make.pick([`{${make.key()}:"a+b"}`, make.value(2)])}}`;
      const bytes = Buffer.from(text);
      const scanner = new JsonScanner(bytes, { follow: ["Code", "ZipFile"] });
      scanner.advance();
      const parsed = JSON.parse(text) as { Code?: { ZipFile?: unknown } | null };
      const value = parsed.Code?.ZipFile;
      const range = scanner.followed;
      if (range === null) {
        // A key with escapes is not recognised, and that is all.
        assert.ok(typeof value !== "string" || text.includes("\\u0043ode"), text);
        continue;
      }
      found += 1;
      if (!text.includes("\\u0043ode")) {
        assert.equal(JSON.parse(`"${bytes.subarray(range.start, range.end).toString()}"`), value, text);
      }
    }
    assert.ok(found > 100, `${found} found`);
  });

  it("says where and what is wrong", () => {
    assert.equal(failure('{"a":1,}'), "Unexpected character '}' at byte 7");
    assert.equal(failure("[1"), "Unexpected end of the text at byte 2");
    assert.equal(failure(""), "Unexpected end of the text at byte 0");
    assert.equal(failure('"\u0001"'), "Unexpected byte 0x01 at byte 1");
    assert.equal(failure("\ufeff1"), "Unexpected byte 0xef at byte 0");
  });

  it("stops at the first level and at the first value too many", () => {
    const limits = { depthMax: 3, valuesMax: 5 };
    const advance = (text: string): boolean => new JsonScanner(Buffer.from(text), { limits }).advance();
    assert.ok(advance('[[{"a":1}]]'));
    assert.throws(
      () => advance("[[[[]]]]"),
      (error) => error instanceof JsonLimitError && /at most 3/.test(error.message),
    );
    assert.ok(advance("[1,2,3,4]"));
    assert.throws(() => advance("[1,2,3,4,5]"), JsonLimitError);
    // The limit is met before the rest of the text is looked at.
    assert.throws(() => advance("[[[[".repeat(1_000_000)), JsonLimitError);
  });

  it("keeps a bit a level and nothing else, however deep", () => {
    const depth = 1_000_000;
    assert.ok(scans(Buffer.from("[".repeat(depth) + "]".repeat(depth)), 65_536));
    assert.ok(!scans(Buffer.from(`${"[".repeat(depth)}${"]".repeat(depth - 1)}}`)));
  });
});
