import assert from "node:assert/strict";
import { test } from "node:test";
import { NETWORK_BLOCKS, NETWORKS_MAX } from "../../wire/limits.ts";
import { blockLinks, blockNetwork, ipv4, ipv4Text, slotAddresses, SLOTS_NETWORK, SLOTS_PREFIX } from "./addresses.ts";

test("addresses are numbers and texts", () => {
  assert.equal(ipv4("169.254.76.2"), 0xa9fe4c02);
  assert.equal(ipv4Text(ipv4("255.0.9.255")), "255.0.9.255");
  for (const wrong of ["", "1.2.3", "1.2.3.256", "::1", "a"]) assert.throws(() => ipv4(wrong), /is no IPv4 address/);
});

test("no two networks of a machine have anything in common", () => {
  const seen = new Set<number | string>();
  const size = 2 ** (32 - SLOTS_PREFIX);
  for (let block = 0; block < NETWORK_BLOCKS; block++) {
    const { network, prefix } = blockNetwork(block);
    for (let number = 0; number < NETWORKS_MAX; number++) {
      const { linkName, linkIndex, host, slot } = slotAddresses(block, number);
      for (const each of [linkName, linkIndex, host, slot]) {
        assert.ok(!seen.has(each), String(each));
        seen.add(each);
      }
      for (const address of [host, slot]) {
        assert.ok(address >= SLOTS_NETWORK && address < SLOTS_NETWORK + size);
        assert.ok(address >= network && address < network + 2 ** (32 - prefix));
      }
      // A pair by itself: the lower address even.
      assert.equal(host % 2, 0);
      assert.equal(slot, host + 1);
      // IFNAMSIZ, and the kernel's indices are positive.
      assert.ok(linkName.length <= 15 && linkName.startsWith(blockLinks(block).slice(0, -1)));
      assert.ok(linkIndex > 0 && linkIndex < 2 ** 31);
    }
  }
  assert.throws(() => slotAddresses(NETWORK_BLOCKS, 0), /no network 0 in block/);
  assert.throws(() => slotAddresses(0, NETWORKS_MAX), /no network/);
});

test("the links of one block are not taken for those of another", () => {
  const prefixes = Array.from({ length: NETWORK_BLOCKS }, (_, block) => blockLinks(block).slice(0, -1));
  for (const [block, prefix] of prefixes.entries()) {
    const { linkName } = slotAddresses(block, 12);
    assert.deepEqual(
      prefixes.filter((each) => linkName.startsWith(each)),
      [prefix],
    );
  }
});
