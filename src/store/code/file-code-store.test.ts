import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ZipFile } from "yazl";
import { CODE_KEEP_MS, UNZIPPED_BYTES_MAX, ZIP_BYTES_MAX } from "../../wire/limits.ts";
import { systemClock } from "../../lib/clock.ts";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import type { CodeImage } from "../code.ts";
import { openCodeStore } from "./file-code-store.ts";
import { TRASH_KEEP_MS } from "./trash.ts";

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

/** Makes code look as if it had been uploaded long ago. */
const age = async (dataDir: string, ...digests: readonly (string | undefined)[]): Promise<void> => {
  const longAgoS = (Date.now() - CODE_KEEP_MS) / 1000 - 600;
  for (const digest of digests) await utimes(join(dataDir, "code", `${digest}.json`), longAgoS, longAgoS);
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
    assert.deepEqual(image.imagePath, same.imagePath);
    assert.deepEqual(await readFile(image.zipPath), zip);
    assert.equal(image.zipBytes, zip.byteLength);
    assert.equal((await stat(image.imagePath)).mode & 0o777, 0o444);
    assert.match(describeImage(image.imagePath), /Filesystem UUID:\s+68656172/);
    const { digest, zipPath, zipBytes, imagePath } = image;
    assert.deepEqual(await store.get(image.digest), { digest, zipPath, zipBytes, imagePath });
    assert.deepEqual(await (await openCodeStore(at.path, systemClock)).get(image.digest), {
      digest,
      zipPath,
      zipBytes,
      imagePath,
    });
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
    const { imagePath } = await store.put(zip);
    const tree = join(at.path, "tree");
    execFileSync("fsck.erofs", [`--extract=${tree}`, imagePath]);
    assert.equal(await readFile(join(tree, "a.js"), "utf8"), "second");
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
  it("sweeps at opening what was half made, and nothing else", async () => {
    await using at = await place();
    const code = join(at.path, "code");
    await mkdir(join(code, "making-abc", "tree"), { recursive: true });
    const others = [`${"a".repeat(64)}.erofs`, `${"b".repeat(64)}.zip`, "README"];
    for (const name of others) await writeFile(join(code, name), "somebody's");
    await openCodeStore(at.path, systemClock);
    assert.deepEqual((await readdir(code)).sort(), others.sort());
  });

  it("collects old code nobody uses, and leaves fresh and used code", async () => {
    await using at = await place();
    const store = await openCodeStore(at.path, systemClock);
    const zips = await Promise.all(["one", "two", "three"].map((text) => zipOf([{ name: "f", text }])));
    const images = await Promise.all(zips.map((zip) => store.put(zip)));
    for (const image of images) image[Symbol.dispose]();
    await age(at.path, images[0]?.digest, images[1]?.digest);
    await store.collect(new Set([images[0]?.digest ?? ""]));
    const names = await readdir(join(at.path, "code"));
    const [used, unused, fresh] = images.map(({ digest }) => names.filter((name) => name.startsWith(digest)).length);
    assert.deepEqual([used, unused, fresh], [3, 0, 3]);
    assert.deepEqual(await readdir(join(at.path, "trash")), [`${images[1]?.digest}.zip`]);
  });

  it("does not collect what was uploaded and is about to be named", async () => {
    await using at = await place();
    const store = await openCodeStore(at.path, systemClock);
    using image = await store.put(await zipOf([{ name: "f", text: "held" }]));
    await age(at.path, image.digest);
    await store.collect(new Set());
    assert.equal((await stat(image.zipPath)).isFile(), true);
  });

  it("gives back from the trash what is named again, and empties it of what is old", async () => {
    await using at = await place();
    const clock = new VirtualClock({ wallMs: Date.now() });
    const store = await openCodeStore(at.path, clock);
    const digests: string[] = [];
    for (const text of ["back", "gone"]) {
      using image = await store.put(await zipOf([{ name: "f", text }]));
      digests.push(image.digest);
    }
    await age(at.path, ...digests);
    await store.collect(new Set());
    assert.equal((await readdir(join(at.path, "trash"))).length, 2);
    const [back = "", gone = ""] = digests;
    assert.equal(store.problem(back), null);
    assert.equal((await store.get(back))?.digest, back);
    clock.stepWall(TRASH_KEEP_MS + 60_000);
    await store.collect(new Set(digests));
    assert.deepEqual(await readdir(join(at.path, "trash")), []);
    assert.match(store.problem(gone) ?? "", /code is lost/);
    assert.equal(await store.get(gone), null);
  });
});

const flip = async (path: string): Promise<void> => {
  const bytes = await readFile(path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  await rm(path);
  await writeFile(path, bytes);
};
const stored = async (path: string): Promise<{ readonly image: CodeImage; readonly bytes: Buffer }> => {
  const store = await openCodeStore(path, systemClock);
  const image = await store.put(await zipOf([{ name: "index.js", text: "exports.handler = 1" }]));
  return { image, bytes: await readFile(image.imagePath) };
};

describe("code store: damage", () => {
  const ways: Readonly<Record<string, (path: string) => Promise<void>>> = {
    missing: (path) => rm(path),
    empty: (path) => truncate(path),
    cut: async (path) => truncate(path, (await stat(path)).size - 1),
    flipped: flip,
  };

  for (const [way, damage] of Object.entries(ways)) {
    it(`makes an image again that is ${way}, from its archive`, async () => {
      await using at = await place();
      const { image, bytes } = await stored(at.path);
      await damage(image.imagePath);
      const told: string[] = [];
      const store = await openCodeStore(at.path, systemClock, (message) => told.push(message));
      assert.deepEqual((await store.get(image.digest))?.imagePath, image.imagePath);
      assert.ok(bytes.equals(await readFile(image.imagePath)));
      assert.match(told.join(), /made again/);
    });

    it(`serves an image whose archive is ${way}, and says so`, async () => {
      await using at = await place();
      const { image, bytes } = await stored(at.path);
      await damage(join(at.path, "code", `${image.digest}.zip`));
      const told: string[] = [];
      const store = await openCodeStore(at.path, systemClock, (message) => told.push(message));
      const found = await store.get(image.digest);
      assert.equal(found?.zipPath, null);
      assert.ok(bytes.equals(await readFile(found.imagePath)));
      assert.match(told.join(), /archive .* is (missing|damaged)/);
    });

    it(`does not serve what is ${way} in both forms, and serves it again when it is back`, async () => {
      await using at = await place();
      const { image, bytes } = await stored(at.path);
      await damage(image.imagePath);
      await damage(join(at.path, "code", `${image.digest}.zip`));
      const store = await openCodeStore(at.path, systemClock);
      assert.equal(await store.get(image.digest), null);
      assert.match(store.problem(image.digest) ?? "", /Upload the/);
      await rm(image.imagePath, { force: true });
      await writeFile(image.imagePath, bytes);
      assert.equal((await store.get(image.digest))?.digest, image.digest);
      assert.equal(store.problem(image.digest), null);
    });
  }

  it("finds an image that is taken away while it serves", async () => {
    await using at = await place();
    const { image, bytes } = await stored(at.path);
    const store = await openCodeStore(at.path, systemClock);
    await store.get(image.digest);
    await rm(image.imagePath);
    await store.get(image.digest);
    assert.ok(bytes.equals(await readFile(image.imagePath)));
  });

  it("takes over a directory without facts, and believes no broken ones", async () => {
    await using at = await place();
    const { image, bytes } = await stored(at.path);
    const facts = join(at.path, "code", `${image.digest}.json`);
    for (const damage of [...Object.values(ways), (path: string) => writeFile(path, '{"zip":{}}')]) {
      await damage(facts);
      const store = await openCodeStore(at.path, systemClock);
      assert.equal((await store.get(image.digest))?.zipBytes, image.zipBytes);
      assert.ok(bytes.equals(await readFile(image.imagePath)));
    }
  });
});
