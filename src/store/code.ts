import type { Digest } from "../wire/function.ts";

/** An uploaded archive in both its forms, on this host's disk. */
export interface CodeImage {
  readonly digest: Digest;
  /** The archive as it was uploaded. */
  readonly zipPath: string;
  readonly zipBytes: number;
  /** The EROFS image made of it, mode 0444. */
  readonly imagePath: string;
  readonly unzippedBytes: number;
}

/** Content-addressed code. An image is made once, at upload, and never changes. */
export interface CodeStore {
  /**
   * Checks the archive, makes the image, and keeps both durably. Resolves at once when the digest is there already.
   * Throws `ServiceError` (InvalidParameterValueException …) naming what is wrong with the archive.
   */
  put(zip: Uint8Array): Promise<CodeImage>;
  /** null when it is not there. */
  get(digest: Digest): Promise<CodeImage | null>;
  /** Removes everything not in `keep`. */
  collect(keep: ReadonlySet<Digest>): Promise<void>;
}
