import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zipOf } from "../functional/functions.ts";
import { compile } from "../vmm/guest.ts";

/** Code of a function that answers with its mark. */
export interface MarkedCode {
  readonly mark: string;
  readonly zip: Uint8Array;
  /** Of the zip, in base64. */
  readonly sha256: string;
}

/** Makes archives of the campaign's function, each with another mark, and knows them by their hashes. */
export class MarkedCodes {
  readonly #program: Uint8Array;
  readonly #marks = new Map<string, string>();

  constructor() {
    const directory = mkdtempSync(join(tmpdir(), "hearth-crash-"));
    try {
      compile(new URL("function.c", import.meta.url).pathname, join(directory, "bootstrap"));
      this.#program = readFileSync(join(directory, "bootstrap"));
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  async make(mark: string): Promise<MarkedCode> {
    const zip = await zipOf({ bootstrap: this.#program, mark });
    const sha256 = createHash("sha256").update(zip).digest("base64");
    this.#marks.set(sha256, mark);
    return { mark, zip, sha256 };
  }

  markOf(sha256: string): string | undefined {
    return this.#marks.get(sha256);
  }
}
