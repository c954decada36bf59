import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ZipFile } from "yazl";
import { systemClock } from "../../lib/clock.ts";
import { CODE_KEEP_MS, UNZIPPED_BYTES_MAX, ZIP_BYTES_MAX } from "../../wire/limits.ts";
import { openCodeStore } from "./file-code-store.ts";

interface Item {
  readonly name: string;
  readonly text: string;
  readonly mode?: number;
  readonly compress?: boolean;
}

const LINK = 0o120777;

const zipOf = async (items: readonly Item[]): Promise<Buffer> => {
  const zip = new ZipFile();
  for (const { name, text, mode = 0o100644, compress = true } of items) {
    if (name.endsWith("/")) zip.addEmptyDirectory(name, { mode });
    else zip.addBuffer(Buffer.from(text), name, { mode, compress });
  }
  zip.end();
  const chunks: Buffer[] = [];
  for await (const chunk of zip.outputStream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
};

/** yazl writes no hostile names: they are put in afterwards, at the same length, in both places a zip has them. */
const renamed = (zip: Buffer, from: string, to: string): Buffer => {
  assert.equal(from.length, to.length);
  return Buffer.from(zip.toString("latin1").replaceAll(from, to), "latin1");
};

const place = async (): Promise<AsyncDisposable & { readonly path: string }> => {
  const path = await mkdtemp(join(tmpdir(), "hearth-code-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
};

const NOT_A_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again.";

const refused = async (zip: Uint8Array, message: string | RegExp): Promise<void> => {
  await using at = await place();
  const store = await openCodeStore(at.path, systemClock);
  await assert.rejects(store.put(zip), { name: "InvalidParameterValueException", status: 400, message });
  assert.deepEqual(await readdir(join(at.path, "code")), [], "nothing of a refused archive is left");
};

/** What the tool of the file system says of an image. */
const describeImage = (image: string): string => execFileSync("dump.erofs", ["-s", image], { encoding: "utf8" });

describe("code store: good archives", () => {
  it("keeps archive and image, once for every digest", async () => {
    await using at = await place();
    const store = await openCodeStore(at.path, systemClock);
    const zip = await zipOf([
      { name: "index.js", text: "exports.handler = 1" },
      { name: "bin/", text: "", mode: 0o040700 },
      { name: "bin/tool", text: "#!/bin/sh", mode: 0o100755 },
      { name: "bin/again", text: "tool", mode: LINK },
    ]);
    const [image, same] = await Promise.all([store.put(zip), store.put(zip)]);
    assert.deepEqual(image, same);
    assert.deepEqual(await readFile(image.zipPath), zip);
    assert.equal(image.zipBytes, zip.byteLength);
    assert.equal((await stat(image.imagePath)).mode & 0o777, 0o444);
    assert.match(describeImage(image.imagePath), /Filesystem UUID:\s+68656172/);
    assert.deepEqual(await store.get(image.digest), image);
    assert.deepEqual(await (await openCodeStore(at.path, systemClock)).get(image.digest), image);
    assert.equal(await store.get("0".repeat(64)), null);
    assert.equal(await store.get("../../etc/passwd"), null);
  });

  it("makes the same image of the same archive on every host", async () => {
    await using one = await place();
    await using two = await place();
    const zip = await zipOf([{ name: "a/b/c.txt", text: "x".repeat(10_000) }]);
    const images = await Promise.all(
      [one, two].map(async ({ path }) => readFile((await (await openCodeStore(path, systemClock)).put(zip)).imagePath)),
    );
    assert.ok(images[0]?.equals(images[1] ?? Buffer.alloc(0)));
  });

  it("takes the last of two entries with the same name", async () => {
    await using at = await place();
    const store = await openCodeStore(at.path, systemClock);
    const zip = renamed(
      await zipOf([
        { name: "a.js", text: "first, and much longer than the second" },
        { name: "b.js", text: "second" },
      ]),
      "b.js",
      "a.js",
    );
    assert.equal((await store.put(zip)).unzippedBytes, "second".length);
  });
});

describe("code store: bad archives", () => {
  it("refuses what is no zip, with Lambda's texts", async () => {
    await refused(Buffer.from("this is no zip file at all, is it?"), NOT_A_ZIP);
    await refused(new Uint8Array(0), "Uploaded file must be a non-empty zip");
    await refused(await zipOf([]), "Uploaded file must be a non-empty zip");
    await refused(await zipOf([{ name: "only/", text: "" }]), "Uploaded file must be a non-empty zip");
  });

  it("refuses truncated and damaged archives", async () => {
    const zip = await zipOf([{ name: "index.js", text: "exports.handler = 1", compress: false }]);
    await refused(zip.subarray(0, zip.byteLength - 30), NOT_A_ZIP);
    const damaged = renamed(zip, "exports.handler = 1", "exports.handler = 2");
    await refused(damaged, /the entry "index\.js" is damaged: its checksum differs/);
    const squeezed = await zipOf([{ name: "index.js", text: "z".repeat(9_999) }]);
    squeezed.fill(0xff, 40, 50);
    await refused(squeezed, /^Could not unzip uploaded file\..* \(/);
  });

  it("refuses names that lead outside", async () => {
    for (const name of ["../aa.js", "/aaaa.js", "a/../../", "x\\..\\.js", "C:/aa.js"]) {
      await refused(
        renamed(await zipOf([{ name: "aaaaa.js", text: "x" }]), "aaaaa.js", name),
        /^Could not unzip .* \(/,
      );
    }
  });

  it("refuses links that lead outside, and files behind links", async () => {
    for (const target of ["/etc/passwd", "../outside", "a/../../outside", "..", ""]) {
      await refused(await zipOf([{ name: "link", text: target, mode: LINK }]), /symbolic link "link" leads outside/);
    }
    const items = [
      { name: "link", text: "elsewhere", mode: LINK },
      { name: "link/file", text: "x" },
    ];
    await refused(await zipOf(items), /"link\/file" lies below "link", which is no directory/);
  });

  it("refuses devices and encrypted entries", async () => {
    await refused(await zipOf([{ name: "dev", text: "", mode: 0o020666 }]), /"dev" is a device/);
    const zip = await zipOf([{ name: "index.js", text: "exports.handler = 1" }]);
    // Bit 0 of the general purpose flags, in the central directory (offset 8 after its signature).
    const at = zip.indexOf("PK\u0001\u0002", 0, "latin1") + 8;
    zip.writeUInt16LE(zip.readUInt16LE(at) | 1, at);
    await refused(zip, /"index\.js" is encrypted/);
  });

  it("refuses one byte over each limit, declared or real", async () => {
    await using at = await place();
    const store = await openCodeStore(at.path, systemClock);
    await assert.rejects(store.put(new Uint8Array(ZIP_BYTES_MAX + 1)), {
      name: "RequestEntityTooLargeException",
      message: `Zipped size must be smaller than ${ZIP_BYTES_MAX} bytes`,
    });
    const zip = await zipOf([{ name: "bomb", text: "b".repeat(1_000) }]);
    const central = zip.indexOf("PK\u0001\u0002", 0, "latin1");
    const declared = Buffer.from(zip);
    declared.writeUInt32LE(UNZIPPED_BYTES_MAX + 1, central + 24);
    await refused(declared, `Unzipped size must be smaller than ${UNZIPPED_BYTES_MAX} bytes`);
    // Says 10 bytes and holds 1,000.
    const liar = Buffer.from(zip);
    liar.writeUInt32LE(10, central + 24);
    await refused(liar, /^Could not unzip .*too many bytes/);
  });
});

describe("code store: crashes and collection", () => {
  it("sweeps at opening what was half made", async () => {
    await using at = await place();
    const code = join(at.path, "code");
    await mkdir(join(code, "making-abc", "tree"), { recursive: true });
    await writeFile(join(code, `${"a".repeat(64)}.erofs`), "image without its zip");
    await writeFile(join(code, `${"b".repeat(64)}.zip`), "zip without its image");
    const store = await openCodeStore(at.path, systemClock);
    assert.deepEqual(await readdir(code), []);
    assert.equal(await store.get("a".repeat(64)), null);
  });

  it("collects old code nobody uses, and leaves fresh and used code", async () => {
    await using at = await place();
    const store = await openCodeStore(at.path, systemClock);
    const zips = await Promise.all(["one", "two", "three"].map((text) => zipOf([{ name: "f", text }])));
    const images = await Promise.all(zips.map((zip) => store.put(zip)));
    const longAgoS = (Date.now() - CODE_KEEP_MS) / 1000 - 1;
    for (const image of images.slice(0, 2)) await utimes(image.zipPath, longAgoS, longAgoS);
    await store.collect(new Set([images[0]?.digest ?? ""]));
    const left = await Promise.all(images.map((image) => store.get(image.digest)));
    assert.deepEqual(
      left.map((image) => image !== null),
      [true, false, true],
    );
  });
});
