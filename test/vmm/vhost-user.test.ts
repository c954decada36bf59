import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import type { DeviceError } from "../../src/vmm/devices/device-error.ts";
import { testHost } from "../../src/vmm/devices/testing.ts";
import { VsockDevice } from "../../src/vmm/devices/vsock.ts";
import { MemoryMappings } from "../../src/vmm/transports/memory-mappings.ts";
import { MemorySlices } from "../../src/vmm/transports/memory-slices.ts";
import { VhostUserBackend, type BackendEnd } from "../../src/vmm/transports/vhost-user.ts";
import { compile } from "./guest.ts";

let directory: string;
let peer: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "hv-"));
  peer = join(directory, "peer");
  compile(new URL("hostile-peer.c", import.meta.url).pathname, peer);
});

after(() => {
  rmSync(directory, { recursive: true, force: true });
});

/** Serves a device to a peer that misbehaves; resolves to how that ended. */
const meet = async (what: string): Promise<BackendEnd | DeviceError> => {
  const path = join(directory, what);
  const { promise, resolve } = Promise.withResolvers<BackendEnd | DeviceError>();
  const owner = testHost(resolve);
  using device = new VsockDevice(owner);
  using mappings = new MemoryMappings(new MemorySlices(), 8 * 2 ** 20);
  const backend = new VhostUserBackend({ path, device, mappings, owner, onEnd: resolve });
  const child = spawn(peer, [path, what], { env: {} });
  const exited = once(child, "exit");
  const end = await promise;
  backend[Symbol.dispose]();
  await exited;
  assert.ok(!existsSync(path));
  return end;
};

const refused: readonly (readonly [what: string, reason: RegExp])[] = [
  ["unsealed", /not sealed against shrinking/],
  ["short", /shorter than the announced region/],
  ["file", /not a memfd/],
  ["eventfd", /not a memfd/],
  ["huge", /impossible memory region/],
  ["too-much", /16777216 bytes more of guest memory; 8388608 may be/],
  ["uneven", /impossible memory region/],
  ["no-descriptor", /1 memory regions with 0 descriptors/],
  ["many-descriptors", /errno 90/],
  ["many-regions", /malformed/],
  ["twice", /set twice/],
  ["long-message", /a message of 4294967295 bytes/],
  ["unknown-request", /request 77 is not supported/],
  ["wrong-version", /message flags 0x2/],
  ["enable-early", /without memory/],
  ["ring-out-of-range", /ring 255 does not exist/],
  ["config-beyond", /beyond the configuration space/],
  ["truncated", /malformed/],
  ["endless", /more than 256 messages/],
];

for (const [what, reason] of refused) {
  test(`a peer is refused: ${what}`, async () => {
    const before = readdirSync("/proc/self/fd").length;
    const end = await meet(what);
    assert.ok(end instanceof Error, String(end));
    assert.match(end.message, reason);
    // Descriptors that came with the message are closed; the child's three pipes are Node's and go in their own time.
    assert.ok(readdirSync("/proc/self/fd").length <= before + 4);
  });
}

test("a peer that goes away is no error", async () => {
  assert.equal(await meet("gone"), "closed");
});
