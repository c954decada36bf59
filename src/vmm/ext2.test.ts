import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { emptyExt2 } from "./ext2.ts";

const MIB = 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), "hearth-ext2-"));
after(() => rmSync(directory, { recursive: true, force: true }));

/** What e2fsprogs say of it: a checker written by others is the judge. */
const fieldOf = (text: string, name: string): string =>
  new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1] ?? `no ${name}`;

// Sizes at the ends of the range, odd ones, and ones whose last group is nearly empty.
for (const mib of [1, 8, 126, 127, 128, 512, 513, 636, 1000, 10_240]) {
  test(`e2fsck finds nothing to mend in ${String(mib)} MiB`, () => {
    const path = join(directory, String(mib));
    const { bytes, extents } = emptyExt2(mib * MIB, randomBytes(16), 1_700_000_000);
    const fd = openSync(path, "w");
    ftruncateSync(fd, bytes);
    for (const extent of extents) writeSync(fd, extent.bytes, 0, extent.bytes.length, extent.offset);
    closeSync(fd);
    const check = execFileSync("/sbin/e2fsck", ["-f", "-n", path], { encoding: "utf8", stdio: "pipe" });
    assert.match(check, /11\/\d+ files|10\/\d+ files/);
    assert.doesNotMatch(check, /\? no/);
    const about = execFileSync("/sbin/dumpe2fs", ["-h", path], { encoding: "utf8", stdio: "pipe" });
    assert.equal(fieldOf(about, "Filesystem state"), "clean");
    const free = Number(fieldOf(about, "Free blocks")) * 4096;
    assert.ok(free >= mib * MIB && free < mib * MIB * 1.002 + MIB, `${String(free)} bytes free`);
    assert.ok(statSync(path).blocks * 512 < 2 * MIB, "it is sparse");
  });
}
