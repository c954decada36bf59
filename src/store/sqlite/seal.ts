import { crc32 } from "node:zlib";

/**
 * A row's checksum, kept in the row: SQLite finds a damaged page by its structure only, and a flipped bit within a text is
 * none of its business. It proves nothing against somebody who wants to deceive; whoever can write the file can do worse.
 */
export const sealOf = (...parts: readonly (string | number | null | Uint8Array)[]): number => {
  let seal = 0;
  for (const part of parts) {
    const bytes = part instanceof Uint8Array ? part : JSON.stringify(part);
    // Lengths are in it, so that nothing can move from one part to the next.
    seal = crc32(bytes, crc32(`${bytes.length};`, seal));
  }
  return seal;
};
