import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Both ends of a pipe, neither of which blocks, and an end to write to that does. To be closed by the caller. */
export const openPipe = async (): Promise<{ reader: number; writer: number; blocking: number }> => {
  const directory = mkdtempSync(join(tmpdir(), "hearth-pipe-"));
  try {
    const path = join(directory, "pipe");
    const [code] = (await once(spawn("mkfifo", [path]), "exit")) as [number];
    assert.equal(code, 0);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    return { reader, writer, blocking: openSync(path, constants.O_WRONLY) };
  } finally {
    rmSync(directory, { recursive: true });
  }
};
