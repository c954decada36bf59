/*
 * As much of tar as a backup is made of: regular files with short names ("ustar Interchange Format" of POSIX's pax), which
 * every tar can list and unpack. Written and read as a stream, file by file.
 */

const BLOCK_BYTES = 512;
const SIZE_AT = 124;
const SIZE_DIGITS = 11;
const SUM_AT = 148;
const SUM_BYTES = 8;
const TYPE_AT = 156;
const MAGIC_AT = 257;
export const NAME_BYTES_MAX = 100;
const OCTAL = 8;
/** What eleven octal digits can say: 8 GiB less one. */
const FILE_BYTES_MAX: number = OCTAL ** SIZE_DIGITS - 1;
const REGULAR = "0".charCodeAt(0);

const octal = (value: number, digits: number): string => value.toString(OCTAL).padStart(digits, "0");

const sumOf = (head: Buffer): number => {
  let sum = 0;
  for (const [at, byte] of head.entries()) sum += at >= SUM_AT && at < SUM_AT + SUM_BYTES ? 0x20 : byte;
  return sum;
};

const headOf = (name: string, bytes: number, modifiedMs: number): Buffer => {
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new RangeError(`a name in a backup must be short, got ${name}`);
  if (bytes > FILE_BYTES_MAX) throw new RangeError(`a file in a backup must be below 8 GiB, got ${bytes} (${name})`);
  const head = Buffer.alloc(BLOCK_BYTES);
  head.write(name, 0);
  head.write("0000600\0", 100);
  head.write("0000000\0", 108);
  head.write("0000000\0", 116);
  head.write(`${octal(bytes, SIZE_DIGITS)}\0`, SIZE_AT);
  head.write(`${octal(Math.floor(modifiedMs / 1000), SIZE_DIGITS)}\0`, 136);
  head[TYPE_AT] = REGULAR;
  head.write("ustar\x0000", MAGIC_AT, "latin1");
  head.write(`${octal(sumOf(head), 6)}\0 `, SUM_AT);
  return head;
};

const paddingOf = (bytes: number): number => (BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES;

/** A file to be packed: `bytes` must be what `content` gives. */
export interface Packed {
  readonly name: string;
  readonly bytes: number;
  readonly content: AsyncIterable<Buffer>;
}

/** The bytes of a tar. Throws when a content is longer or shorter than was said. */
export async function* packTar(files: AsyncIterable<Packed>, modifiedMs: number): AsyncGenerator<Buffer> {
  for await (const { name, bytes, content } of files) {
    yield headOf(name, bytes, modifiedMs);
    let given = 0;
    for await (const chunk of content) {
      given += chunk.length;
      yield chunk;
    }
    if (given !== bytes) throw new Error(`${name} changed while it was read`);
    yield Buffer.alloc(paddingOf(bytes));
  }
  yield Buffer.alloc(2 * BLOCK_BYTES);
}

/** The archive is not one of ours, or is damaged. */
export class TarError extends Error {
  override readonly name = "TarError";
}

/** Hands out a stream in pieces of the lengths that are asked for. */
class Source {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Some bytes, at most so many; null at the end. */
  async some(bytesMax: number): Promise<Buffer | null> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done === true) return null;
      this.#rest = next.value;
    }
    const given = this.#rest.subarray(0, bytesMax);
    this.#rest = this.#rest.subarray(given.length);
    return given;
  }

  async exactly(bytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0;) {
      const piece = await this.some(left);
      if (piece === null) throw new TarError("it is cut off");
      pieces.push(piece);
      left -= piece.length;
    }
    return Buffer.concat(pieces);
  }
}

async function* contentOf(source: Source, bytes: number): AsyncGenerator<Buffer> {
  for (let left = bytes; left > 0;) {
    const piece = await source.some(left);
    if (piece === null) throw new TarError("it is cut off");
    left -= piece.length;
    yield piece;
  }
}

/** Reads a tar, handing each file to `take`, which must read its content to the end. Throws TarError. */
export const unpackTar = async (
  chunks: AsyncIterable<Buffer>,
  take: (name: string, bytes: number, content: AsyncIterable<Buffer>) => Promise<void>,
): Promise<void> => {
  const source = new Source(chunks);
  for (;;) {
    const head = await source.exactly(BLOCK_BYTES);
    if (head.every((byte) => byte === 0)) {
      // To the very end: what packed the tar may have more to say, that it is damaged for instance.
      while ((await source.some(BLOCK_BYTES)) !== null);
      return;
    }
    const sum = Number.parseInt(head.toString("latin1", SUM_AT, SUM_AT + 6), OCTAL);
    if (sum !== sumOf(head) || head.toString("latin1", MAGIC_AT, MAGIC_AT + 5) !== "ustar") {
      throw new TarError("it is no tar, or is damaged");
    }
    const name = head.toString("latin1", 0, NAME_BYTES_MAX).replace(/\0.*$/s, "");
    if (head[TYPE_AT] !== REGULAR) throw new TarError(`${name} in it is no regular file`);
    const bytes = Number.parseInt(head.toString("latin1", SIZE_AT, SIZE_AT + SIZE_DIGITS), OCTAL);
    if (!Number.isSafeInteger(bytes)) throw new TarError(`${name} in it has no size`);
    await take(name, bytes, contentOf(source, bytes));
    await source.exactly(paddingOf(bytes));
  }
};
