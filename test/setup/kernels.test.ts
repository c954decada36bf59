import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { KERNELS, readKernelManifest } from "../../scripts/kernels/manifest.ts";
import { digestOf } from "../../scripts/support.ts";

/* That the kernel itself is what these build takes minutes to show: npm run verify:kernels. */
test("the manifest of kernels speaks of the patches and configurations that are here", async () => {
  for (const record of Object.values(await readKernelManifest())) {
    assert.equal(await digestOf(join(KERNELS, "uml.fragment")), record.fragmentSha256);
    assert.equal(await digestOf(join(KERNELS, record.config)), record.configSha256);
    const patches = (await readdir(join(KERNELS, "patches"))).filter((name) => name.endsWith(".patch"));
    assert.deepEqual(patches.toSorted(), Object.keys(record.patches));
    for (const [name, digest] of Object.entries(record.patches))
      assert.equal(await digestOf(join(KERNELS, "patches", name)), digest, name);
  }
});
