import { deflateRawSync } from "node:zlib";

/*
 * Archives as an attacker writes them, byte by byte ("4.3 General Format of a .ZIP file" of PKWARE's APPNOTE.TXT). Each
 * shape takes a size n and grows with it; what reading it costs must grow no faster than its bytes. For tests.
 */

interface Entry {
  readonly name: string;
  /** Bytes as they stand in the archive. */
  readonly stored?: Buffer;
  readonly deflated?: boolean;
  readonly size?: number;
  readonly extra?: Buffer;
  readonly comment?: string;
  /** Names the data of the first entry instead of bringing its own. */
  readonly overlaps?: boolean;
}

const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
const METHOD_DEFLATE = 8;
const NOTHING: Buffer = Buffer.alloc(0);

const localOf = (entry: Entry, name: Buffer): Buffer => {
  const stored = entry.stored ?? NOTHING;
  const head = Buffer.alloc(LOCAL_BYTES);
  head.writeUInt32LE(0x04034b50, 0);
  head.writeUInt16LE(entry.deflated === true ? METHOD_DEFLATE : 0, 8);
  head.writeUInt32LE(stored.length, 18);
  head.writeUInt32LE(entry.size ?? stored.length, 22);
  head.writeUInt16LE(name.length, 26);
  return Buffer.concat([head, name, stored]);
};

const centralOf = (entry: Entry, name: Buffer, offset: number, storedBytes: number): Buffer => {
  const [extra, comment] = [entry.extra ?? NOTHING, Buffer.from(entry.comment ?? "")];
  const head = Buffer.alloc(CENTRAL_BYTES);
  head.writeUInt32LE(0x02014b50, 0);
  head.writeUInt16LE(entry.deflated === true ? METHOD_DEFLATE : 0, 10);
  head.writeUInt32LE(storedBytes, 20);
  head.writeUInt32LE(entry.size ?? storedBytes, 24);
  head.writeUInt16LE(name.length, 28);
  head.writeUInt16LE(extra.length, 30);
  head.writeUInt16LE(comment.length, 32);
  head.writeUInt32LE(offset, 42);
  return Buffer.concat([head, name, extra, comment]);
};

const zipOf = (entries: readonly Entry[]): Buffer => {
  const locals: Buffer[] = [];
  const centrals: Buffer[] = [];
  let at = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.name);
    const stored = (entry.overlaps === true ? entries[0]?.stored : entry.stored) ?? NOTHING;
    centrals.push(centralOf(entry, name, entry.overlaps === true ? 0 : at, stored.length));
    if (entry.overlaps === true) continue;
    const local = localOf(entry, name);
    locals.push(local);
    at += local.length;
  }
  const central = Buffer.concat(centrals);
  const end = Buffer.alloc(END_BYTES);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Math.min(entries.length, 0xffff), 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...locals, central, end]);
};

const range = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));

/** Extra fields of four bytes each, with nothing in them: as many as fit into one entry. */
const manyExtras = (count: number): Buffer => {
  const extra = Buffer.alloc(4 * count);
  for (let n = 0; n < count; n += 1) extra.writeUInt16LE(0xcafe, 4 * n);
  return extra;
};

/** Blocks of a deflate stream that hold nothing ("3.2.4 Non-compressed blocks" of RFC 1951), then its last one. */
const emptyBlocks = (count: number): Buffer =>
  Buffer.concat([Buffer.alloc(5 * count, Buffer.from([0, 0, 0, 0xff, 0xff])), deflateRawSync(NOTHING)]);

const deep = (levels: number, leaf: string): string => `${"a/".repeat(levels)}${leaf}`;

/** By what is in them. `bad` ones are refused, which must not cost more than reading good ones. */
export const HOSTILE_SHAPES: Readonly<Record<string, { readonly make: (n: number) => Buffer; readonly bad: boolean }>> =
  {
    "directories within directories, each listed, and files below them": {
      make: (n) =>
        zipOf([
          ...range(120, (level) => ({ name: deep(level + 1, "") })),
          ...range(40 * n, (file) => ({ name: deep(120, `f${file}`) })),
        ]),
      bad: false,
    },
    "directories deeper than may be": {
      make: (n) => zipOf([...range(20 * n, () => ({ name: deep(140, "") })), { name: "f" }]),
      bad: true,
    },
    "directories that nobody listed, each path another": {
      make: (n) =>
        zipOf(range(10 * n, (at) => ({ name: range(60, (level) => `${at.toString(36)}${level}`).join("/") }))),
      bad: false,
    },
    "empty files": { make: (n) => zipOf(range(100 * n, (at) => ({ name: `file ${at}` }))), bad: false },
    "one name again and again": {
      make: (n) =>
        zipOf([
          ...range(200 * n, () => ({ name: "same" })),
          ...range(200 * n, () => ({ name: "same/" })),
          { name: "f" },
        ]),
      bad: false,
    },
    "names as long as may be": {
      make: (n) => zipOf(range(10 * n, (at) => ({ name: `${`${"x".repeat(250)}/`.repeat(11)}${at}` }))),
      bad: false,
    },
    "slashes and dots": {
      make: (n) => zipOf([...range(4 * n, () => ({ name: "./".repeat(30_000) })), { name: "f" }]),
      bad: false,
    },
    "extra fields and comments": {
      make: (n) =>
        zipOf(range(2 * n, (at) => ({ name: `f${at}`, extra: manyExtras(8_000), comment: "c".repeat(30_000) }))),
      bad: false,
    },
    "entries that share their bytes": {
      make: (n) => {
        const stored = Buffer.alloc(1_000 * n, 1);
        return zipOf(range(20 * n, (at) => ({ name: `f${at}`, stored, overlaps: at > 0 })));
      },
      bad: true,
    },
    "deflated nothing": {
      make: (n) =>
        zipOf(range(10, (at) => ({ name: `f${at}`, stored: emptyBlocks(500 * n), deflated: true, size: 0 }))),
      bad: false,
    },
  };
