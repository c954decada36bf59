import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { takeOwnDirectory } from "./own-directory.ts";

const ROOT = process.getuid?.() === 0;
/** A user that is neither root nor us. */
const OTHER = 12_345;
let base = "";

before(() => {
  base = mkdtempSync(join(tmpdir(), "hearth-own-"));
});

after(() => {
  rmSync(base, { recursive: true, force: true });
});

const refused = (path: string, why: RegExp): void => {
  assert.throws(
    () => takeOwnDirectory(path, 0o711, "safe"),
    (error: Error) => error.message.includes(`The directory ${path} is not safe to use`) && why.test(error.message),
  );
};

test("a directory is made with all above it, closed to others, and taken again", () => {
  const path = join(base, "a", "b");
  takeOwnDirectory(path, 0o711, "safe");
  assert.equal(lstatSync(path).mode & 0o777, 0o711);
  takeOwnDirectory(path, 0o711, "safe");
});

test("what somebody else may have put there is refused by name", () => {
  const elsewhere = join(base, "elsewhere");
  mkdirSync(elsewhere);
  symlinkSync(elsewhere, join(base, "link"));
  refused(join(base, "link"), /symbolic link/);
  const open = join(base, "open");
  mkdirSync(open);
  chmodSync(open, 0o777);
  refused(open, /others may write/);
  refused(join(open, "below"), /open can be written by others/);
  const group = join(base, "group");
  mkdirSync(group);
  chmodSync(group, 0o775);
  refused(group, /others may write/);
  // As /tmp is: others may add, and not rename what is ours.
  chmodSync(open, 0o1777);
  takeOwnDirectory(join(open, "below"), 0o711, "safe");
  writeFileSync(join(base, "file"), "");
  assert.throws(() => takeOwnDirectory(join(base, "file"), 0o711, "safe"), /file/);
});

test(
  "another user's is refused, and one below another user's unless that place was named",
  { skip: !ROOT && "needs root" },
  () => {
    const theirs = join(base, "theirs");
    mkdirSync(theirs);
    chownSync(theirs, OTHER, OTHER);
    refused(theirs, new RegExp(`belongs to user ${String(OTHER)}`));
    refused(join(theirs, "below"), new RegExp(`theirs belongs to user ${String(OTHER)}`));
    takeOwnDirectory(join(theirs, "below"), 0o711, "any");
    // A link of theirs on the way leads wherever they like.
    const road = join(base, "road");
    symlinkSync(base, road);
    takeOwnDirectory(join(road, "ours"), 0o711, "safe");
    rmSync(road);
    symlinkSync(base, road);
    lchownSync(road, OTHER, OTHER);
    refused(join(road, "ours"), /road belongs to user/);
  },
);
