/** Base64 with up to two signs of padding, as AWS's clients send it; Node's decoder takes anything and drops what it does not know. */
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const CHARS_PER_GROUP = 4;
const BYTES_PER_GROUP = 3;
/** The longest escape of a JSON string, `\u002b`. */
const ESCAPE_CHARS_MAX = 6;

/** A text is not base64. */
export class Base64Error extends SyntaxError {
  override readonly name = "Base64Error";
}

/** Throws Base64Error. */
export const decodeBase64 = (text: string): Buffer => {
  if (!BASE64.test(text)) throw new Base64Error("The value is not base64");
  return Buffer.from(text, "base64");
};

/**
 * Decodes base64 that is the content of a JSON string (good JSON, between its quotes), piece by piece, so that an archive
 * of 50 MB holds nobody up. Some clients' JSON escapes `/`, `+` or `=`.
 */
export class Base64Reader {
  readonly #source: Buffer;
  readonly #decoded: Buffer;
  #at = 0;
  #bytes = 0;
  /** Characters that are no whole group yet. */
  #rest = "";
  /** A group with padding is the last one. */
  #padded = false;

  constructor(source: Uint8Array) {
    this.#source = Buffer.from(source.buffer, source.byteOffset, source.byteLength);
    this.#decoded = Buffer.allocUnsafeSlow(Math.ceil(source.byteLength / CHARS_PER_GROUP) * BYTES_PER_GROUP);
  }

  /** What was decoded so far: all of it once `advance` has said so. */
  get decoded(): Buffer {
    return this.#decoded.subarray(0, this.#bytes);
  }

  /** Reads on by `bytesMax` (more than an escape's) and says whether all is decoded. Throws Base64Error. */
  advance(bytesMax: number): boolean {
    const end = this.#pieceEnd(Math.min(this.#at + bytesMax, this.#source.byteLength));
    const text = this.#rest + unescaped(this.#source.toString("latin1", this.#at, end));
    this.#at = end;
    const last = end === this.#source.byteLength;
    if (!BASE64.test(text) || (this.#padded && text !== "")) {
      throw new Base64Error("The value is not base64");
    }
    const whole = last ? text.length : text.length - (text.length % CHARS_PER_GROUP);
    const groups = text.slice(0, whole);
    this.#padded ||= groups.endsWith("=");
    this.#bytes += this.#decoded.write(groups, this.#bytes, "base64");
    this.#rest = text.slice(whole);
    return last;
  }

  /** Before an escape that would be cut in two. */
  #pieceEnd(end: number): number {
    if (end === this.#source.byteLength) return end;
    const escape = this.#source.lastIndexOf("\\", end - 1);
    return escape >= Math.max(this.#at + 1, end - ESCAPE_CHARS_MAX) ? escape : end;
  }
}

const unescaped = (text: string): string => {
  if (!text.includes("\\")) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    // Half of an escape: two backslashes in a row, which base64 has not.
    throw new Base64Error("The value is not base64");
  }
};
