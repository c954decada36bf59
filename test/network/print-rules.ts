/** Loads the tables of a slot and of a host into the namespace that this runs in, and prints them as nft sees them. */
import { execFileSync } from "node:child_process";
import { askNetlink, checked, native, NETLINK_NETFILTER } from "../../src/vmm/native.ts";
import { ipv4 } from "../../src/worker/network/addresses.ts";
import { parseRange } from "../../src/worker/network/address-range.ts";
import { netlinkRequest } from "../../src/worker/network/netlink.ts";
import { addTable } from "../../src/worker/network/nftables.ts";
import { hostTable, slotTable } from "../../src/worker/network/rules.ts";

const socket = checked("Open netlink", native().openNetlink(NETLINK_NETFILTER));
for (const table of [
  slotTable(),
  hostTable(3, { nameServers: [ipv4("192.0.2.53")], opened: [parseRange("10.1.0.0/16")] }),
])
  askNetlink(socket, "load rules", netlinkRequest(addTable(table)));
process.stdout.write(execFileSync("nft", ["list", "ruleset"], { encoding: "utf8" }));
