/**
 * Tells whether bytes are JSON without building what they say. `JSON.parse` makes an object of every member before
 * anybody can ask how many there are, and cannot be stopped: 58 MB of small members took it 16 s and 2 GB. This scanner
 * takes one pass over the bytes, as far at a time as the caller likes, keeps one bit for every level that is open, and
 * stops at the first byte that is wrong or one too many. What it accepts within its limits is exactly what `JSON.parse`
 * accepts (RFC 8259 without a byte order mark), but for the encoding, which is the caller's to check (`isUtf8`): bytes
 * above 0x7f are taken inside of strings as they are.
 */

export interface JsonScanLimits {
  /** Arrays and objects inside of one another. */
  readonly depthMax: number;
  /** Values of any kind, in all: those of arrays, those of members, and the whole. */
  readonly valuesMax: number;
}

/** Where a string lies in the text: its first byte and the one after its last, without the quotes. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** The text is not JSON. `at` is the offset of the byte that is wrong; the length of the text when that ended too early. */
export class JsonSyntaxError extends SyntaxError {
  override readonly name = "JsonSyntaxError";
  readonly at: number;

  constructor(message: string, at: number) {
    super(`${message} at byte ${at}`);
    this.at = at;
  }
}

/** The text may be JSON, but is deeper or has more values than its reader takes. */
export class JsonLimitError extends RangeError {
  override readonly name = "JsonLimitError";
}

const BITS = 8;
const STACK_BYTES_MIN = 16;

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Where in a text the scanner is: what came before decides which bytes may come next. */
const State = {
  value: 0,
  firstItem: 1,
  firstKey: 2,
  key: 3,
  colon: 4,
  /** Behind a value. */
  next: 5,
  string: 6,
  escape: 7,
  /** Before the first to the fourth digit of \u. */
  hex1: 8,
  hex2: 9,
  hex3: 10,
  hex4: 11,
  minus: 12,
  zero: 13,
  integer: 14,
  point: 15,
  fraction: 16,
  exponent: 17,
  exponentSign: 18,
  exponentDigits: 19,
  /** From here on: inside of a word, one state a letter. */
  words: 20,
} as const;

/** Entries of the table that are more than a next state. */
const Action = {
  error: 64,
  openObject: 65,
  openArray: 66,
  closeObject: 67,
  closeArray: 68,
  comma: 69,
  beginString: 70,
  beginKey: 71,
  endString: 72,
  /** Plus the next state: a number or a word begins, and with it a value. */
  begin: 128,
} as const;
const NUMBER_ENDS: readonly number[] = [State.zero, State.integer, State.fraction, State.exponentDigits];

const BYTES = 256;
const STATES = 32;

/** By state and byte: the next state, or an action. */
const buildTable = (): Uint8Array => {
  const table = new Uint8Array(STATES * BYTES).fill(Action.error);
  const on = (state: number, characters: string, entry: number): void => {
    for (const byte of bytesOf(characters)) table[state * BYTES + byte] = entry;
  };
  for (const state of [State.value, State.firstItem, State.firstKey, State.key, State.colon, State.next]) {
    on(state, " \t\n\r", state);
  }
  let words: number = State.words;
  const word = (text: string): number => {
    const first = words;
    for (const letter of text.slice(1)) {
      on(words, letter, words + 1);
      words += 1;
    }
    // The last letter is followed by what follows any value.
    on(words - 1, text.slice(-1), State.next);
    return first;
  };
  const [yes, no, nothing] = [word("true"), word("false"), word("null")];
  for (const state of [State.value, State.firstItem]) {
    on(state, '"', Action.beginString);
    on(state, "{", Action.openObject);
    on(state, "[", Action.openArray);
    on(state, "-", Action.begin + State.minus);
    on(state, "0", Action.begin + State.zero);
    on(state, "123456789", Action.begin + State.integer);
    on(state, "t", Action.begin + yes);
    on(state, "f", Action.begin + no);
    on(state, "n", Action.begin + nothing);
  }
  on(State.firstItem, "]", Action.closeArray);
  on(State.firstKey, "}", Action.closeObject);
  for (const state of [State.firstKey, State.key]) on(state, '"', Action.beginKey);
  on(State.colon, ":", State.value);
  table.fill(State.string, State.string * BYTES + 0x20, (State.string + 1) * BYTES);
  on(State.string, '"', Action.endString);
  on(State.string, "\\", State.escape);
  on(State.escape, '"\\/bfnrt', State.string);
  on(State.escape, "u", State.hex1);
  for (const state of [State.hex1, State.hex2, State.hex3, State.hex4]) {
    on(state, "0123456789abcdefABCDEF", state === State.hex4 ? State.string : state + 1);
  }
  for (const state of [State.next, ...NUMBER_ENDS]) {
    on(state, " \t\n\r", State.next);
    on(state, ",", Action.comma);
    on(state, "}", Action.closeObject);
    on(state, "]", Action.closeArray);
  }
  addNumbers(on);
  return table;
};

const addNumbers = (on: (state: number, characters: string, entry: number) => void): void => {
  const digits = "0123456789";
  on(State.minus, "0", State.zero);
  on(State.minus, "123456789", State.integer);
  on(State.integer, digits, State.integer);
  for (const state of [State.zero, State.integer]) on(state, ".", State.point);
  for (const state of [State.point, State.fraction]) on(state, digits, State.fraction);
  for (const state of [State.zero, State.integer, State.fraction]) on(state, "eE", State.exponent);
  on(State.exponent, "+-", State.exponentSign);
  for (const state of [State.exponent, State.exponentSign, State.exponentDigits]) {
    on(state, digits, State.exponentDigits);
  }
};

const TABLE: Uint8Array = buildTable();
/** 1 for a byte that stands for itself in a string. */
const PLAIN: Uint8Array = TABLE.slice(State.string * BYTES, (State.string + 1) * BYTES).map((entry) =>
  entry === State.string ? 1 : 0,
);

/** A member that is looked for by its names from the outside in, and where its last string value lies. */
class Followed {
  readonly #path: readonly Uint8Array[];
  /** So many names of the path were met by the objects that are open. */
  #inside = 0;
  /** The key that was read last is the path's next. */
  #matched = false;
  found: ByteRange | null = null;

  constructor(path: readonly string[]) {
    this.#path = path.map(bytesOf);
  }

  /** The key of a member of the object at `depth` (the outermost has 1) was read. */
  key(bytes: Uint8Array, { start, end }: ByteRange, depth: number): void {
    const name = this.#path[this.#inside];
    this.#matched =
      name !== undefined &&
      depth === this.#inside + 1 &&
      end - start === name.byteLength &&
      name.every((byte, at) => bytes[start + at] === byte);
    // Of members of the same name the last one counts, as for JSON.parse.
    if (this.#matched) this.found = null;
  }

  opens(isObject: boolean): void {
    if (this.#matched && isObject && this.#inside + 1 < this.#path.length) this.#inside += 1;
    this.#matched = false;
  }

  /** An array or object ended; `depth` are open still. */
  closes(depth: number): void {
    if (depth <= this.#inside) this.#inside = Math.max(0, depth - 1);
    this.#matched = false;
  }

  string(range: ByteRange): void {
    if (this.#matched && this.#inside + 1 === this.#path.length) this.found = range;
    this.#matched = false;
  }

  /** A value that is neither: the member has no string. */
  forget(): void {
    this.#matched = false;
  }
}

export interface JsonScannerOptions {
  readonly limits?: JsonScanLimits;
  /**
   * Names of members from the outermost object in: `followed` tells where that member's value lies when it is a string. A
   * key that is written with escapes is not recognised.
   */
  readonly follow?: readonly string[];
}

/** One pass over one text. `advance` until it says that all is read; what it throws is the verdict. */
export class JsonScanner {
  readonly #bytes: Uint8Array;
  readonly #depthMax: number;
  readonly #valuesMax: number;
  readonly #followed: Followed | null;
  /** A bit for every level that is open: 1 for an object. */
  #levels: Uint8Array = new Uint8Array(STACK_BYTES_MIN);
  #depth = 0;
  #values = 0;
  #state: number = State.value;
  #at = 0;
  /** Of the string that is being read, or was read last. */
  #stringStart = 0;
  #isKey = false;

  constructor(bytes: Uint8Array, options: JsonScannerOptions = {}) {
    this.#bytes = bytes;
    this.#depthMax = options.limits?.depthMax ?? Number.POSITIVE_INFINITY;
    this.#valuesMax = options.limits?.valuesMax ?? Number.POSITIVE_INFINITY;
    this.#followed = options.follow === undefined ? null : new Followed(options.follow);
  }

  /** Where the followed member's string lies, once all is read; null when it has none. */
  get followed(): ByteRange | null {
    return this.#followed?.found ?? null;
  }

  /**
   * Reads on by `bytesMax` and says whether the whole text was read and is JSON. Throws JsonSyntaxError and
   * JsonLimitError, after which the scanner is of no use.
   */
  advance(bytesMax: number = Number.POSITIVE_INFINITY): boolean {
    const bytes = this.#bytes;
    const end = Math.min(this.#at + bytesMax, bytes.byteLength);
    // Copies of the fields: this loop is what the time goes into.
    let at = this.#at;
    let state = this.#state;
    for (; at < end; at += 1) {
      // Most bytes of most texts are in strings: a loop of their own, ten times as fast.
      if (state === State.string) {
        while (at < end && PLAIN[bytes[at] ?? 0] === 1) at += 1;
        if (at === end) break;
      }
      const entry = TABLE[state * BYTES + (bytes[at] ?? 0)] ?? Action.error;
      if (entry < Action.error) state = entry;
      else {
        this.#at = at;
        state = entry > Action.begin ? this.#begin(entry - Action.begin) : this.#act(entry);
      }
    }
    this.#at = at;
    this.#state = state;
    if (at < bytes.byteLength) return false;
    const whole = this.#depth === 0 && (state === State.next || NUMBER_ENDS.includes(state));
    if (!whole) throw new JsonSyntaxError("Unexpected end of the text", at);
    return true;
  }

  #act(action: number): number {
    switch (action) {
      case Action.openObject:
        return this.#open(true);
      case Action.openArray:
        return this.#open(false);
      case Action.closeObject:
        return this.#close(true);
      case Action.closeArray:
        return this.#close(false);
      case Action.comma:
        if (this.#depth === 0) return this.#unexpected();
        return this.#inObject() ? State.key : State.value;
      case Action.beginString:
        this.#countValue();
        return this.#beginString(false);
      case Action.beginKey:
        return this.#beginString(true);
      case Action.endString:
        return this.#endString();
      default:
        return this.#unexpected();
    }
  }

  #unexpected(): never {
    const byte = this.#bytes[this.#at] ?? 0;
    const printable = byte > 0x20 && byte < 0x7f;
    const shown = printable
      ? `character '${String.fromCharCode(byte)}'`
      : `byte 0x${byte.toString(16).padStart(2, "0")}`;
    throw new JsonSyntaxError(`Unexpected ${shown}`, this.#at);
  }

  #countValue(): void {
    this.#values += 1;
    if (this.#values > this.#valuesMax) {
      throw new JsonLimitError(`the number of its values must be at most ${this.#valuesMax}, got more`);
    }
  }

  #begin(state: number): number {
    this.#countValue();
    this.#followed?.forget();
    return state;
  }

  #inObject(): boolean {
    const level = this.#depth - 1;
    return (((this.#levels[level >>> 3] ?? 0) >> (level % BITS)) & 1) === 1;
  }

  #open(isObject: boolean): number {
    this.#countValue();
    const level = this.#depth;
    this.#depth += 1;
    if (this.#depth > this.#depthMax) {
      throw new JsonLimitError(`its depth must be at most ${this.#depthMax}, got more`);
    }
    const at = level >>> 3;
    if (at >= this.#levels.byteLength) {
      const grown = new Uint8Array(2 * this.#levels.byteLength);
      grown.set(this.#levels);
      this.#levels = grown;
    }
    const bit = 1 << (level % BITS);
    const levels = this.#levels[at] ?? 0;
    this.#levels[at] = isObject ? levels | bit : levels & ~bit;
    this.#followed?.opens(isObject);
    return isObject ? State.firstKey : State.firstItem;
  }

  #close(isObject: boolean): number {
    if (this.#depth === 0 || this.#inObject() !== isObject) return this.#unexpected();
    this.#depth -= 1;
    this.#followed?.closes(this.#depth);
    return State.next;
  }

  #beginString(isKey: boolean): number {
    this.#stringStart = this.#at + 1;
    this.#isKey = isKey;
    return State.string;
  }

  #endString(): number {
    if (this.#followed !== null) {
      const range = { start: this.#stringStart, end: this.#at };
      if (this.#isKey) this.#followed.key(this.#bytes, range, this.#depth);
      else this.#followed.string(range);
    }
    return this.#isKey ? State.colon : State.next;
  }
}
