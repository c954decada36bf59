import type { Digest } from "../wire/function.ts";

/** An uploaded archive in both its forms, on this host's disk. */
export interface CodeImage {
  readonly digest: Digest;
  /** The archive as it was uploaded; null when only the image is left of it. */
  readonly zipPath: string | null;
  readonly zipBytes: number;
  /** The EROFS image made of it, mode 0444. */
  readonly imagePath: string;
}

/** Code that was just stored. It is not collected before this is disposed of: until then a record may come to name it. */
export interface UploadedCode extends CodeImage, Disposable {
  readonly zipPath: string;
}

/**
 * Content-addressed code. An image is made once, at upload, and never changes; one that is missing or damaged is made
 * again from its archive.
 */
export interface CodeStore {
  /**
   * Checks the archive, makes the image, and keeps both durably. Resolves at once when the digest is there already.
   * Throws `ServiceError` (InvalidParameterValueException …) naming what is wrong with the archive.
   */
  put(zip: Uint8Array): Promise<UploadedCode>;
  /** null when neither the archive nor an image that can be trusted is there: `problem` then says what is wrong. */
  get(digest: Digest): Promise<CodeImage | null>;
  /** What keeps this code from being used, as one sentence for its function's owner; null when nothing is known to. */
  problem(digest: Digest): string | null;
  /**
   * Moves everything not in `keep` to the trash, unless it was uploaded a moment ago, and empties the trash of what is
   * old or too much. When the disk is nearly full all of it is removed at once.
   */
  collect(keep: ReadonlySet<Digest>): Promise<void>;
  /** True when the disk is nearly full, so that `collect` removes at once what it would have kept for a while. */
  isShort(): Promise<boolean>;
}
