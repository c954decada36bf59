import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hostNameServers, reachableNameServers } from "./name-servers.ts";

test("name servers that guests can reach", () => {
  assert.deepEqual(
    reachableNameServers(
      "# nameserver 1.1.1.1\nsearch example.org\nnameserver 127.0.0.53\n nameserver\t10.0.0.1 \nnameserver fe80::1%eth0\nnameserver 10.0.0.2\noptions edns0\n",
    ),
    ["10.0.0.1", "10.0.0.2"],
  );
  assert.deepEqual(reachableNameServers(""), []);
  const many = Array.from({ length: 5 }, (_, i) => `nameserver 10.0.0.${i}`).join("\n");
  assert.equal(reachableNameServers(many).length, 3);
});

test("a resolver on the loopback gives way to those that it asks itself", () => {
  const directory = mkdtempSync(join(tmpdir(), "hearth-resolv-"));
  try {
    const file = (name: string, text: string): string => {
      writeFileSync(join(directory, name), text);
      return join(directory, name);
    };
    const stub = file("stub", "nameserver 127.0.0.53\n");
    const upstream = file("upstream", "nameserver 192.0.2.53\n");
    const direct = file("direct", "nameserver 192.0.2.54\n");
    assert.deepEqual(hostNameServers([stub, upstream]), ["192.0.2.53"]);
    assert.deepEqual(hostNameServers([direct, upstream]), ["192.0.2.54"]);
    assert.deepEqual(hostNameServers([stub, join(directory, "absent")]), []);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
