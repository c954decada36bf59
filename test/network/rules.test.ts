import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { cannotNetwork } from "./outside.ts";

/** What is loaded, in the words of nft(8): here it can be read and judged. */
const RULES = `
table ip hearth {
  chain from-guest {
    type filter hook prerouting priority raw; policy accept;
    iifname "tap0" ip saddr != 169.254.76.2 drop
  }
  chain to-namespace {
    type filter hook input priority filter; policy drop;
  }
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established accept
    ct state related meta l4proto icmp accept
    iifname "tap0" ct state new limit rate over 500/second burst 2000 packets drop
    iifname "tap0" ct state new ct count over 4096 drop
    iifname "tap0" oifname "up" ct state new accept
  }
  chain to-slot-address {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "up" masquerade
  }
}
table ip hearth3 {
  flags owner
  set closed {
    type ipv4_addr
    flags constant,interval
    elements = { 0.0.0.0/8, 10.0.0.0/16,
    10.2.0.0-10.255.255.255, 100.64.0.0/10,
    127.0.0.0/8, 168.63.129.16,
    169.254.0.0/16, 172.16.0.0/12,
    192.0.0.0/24, 192.0.2.0/24,
    192.88.99.0/24, 192.168.0.0/16,
    198.18.0.0/15, 198.51.100.0/24,
    203.0.113.0/24, 224.0.0.0/3 }
  }
  chain from-guests {
    type filter hook prerouting priority mangle; policy accept;
    iifname != "hth3-*" accept
    fib saddr . iif oif missing drop
    ip daddr 192.0.2.53 udp dport 53 accept
    ip daddr 192.0.2.53 tcp dport 53 accept
    fib daddr type != unicast drop
    ip daddr @closed drop
  }
  chain to-host {
    type filter hook input priority filter; policy accept;
    iifname "hth3-*" ip daddr 192.0.2.53 udp dport 53 accept
    iifname "hth3-*" ip daddr 192.0.2.53 tcp dport 53 accept
    iifname "hth3-*" drop
  }
  chain through-host {
    type filter hook forward priority filter; policy accept;
    iifname "hth3-*" oifname "hth*" drop
    oifname "hth3-*" ct state established accept
    oifname "hth3-*" ct state related meta l4proto icmp accept
    oifname "hth3-*" drop
  }
  chain to-world {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 198.18.48.0/20 oifname != "hth*" masquerade
  }
}
`;

/** Without what only nft adds: comments, indentation, empty lines. */
const essence = (text: string): string[] =>
  text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "");

test("the rules as the kernel has them", { skip: cannotNetwork() }, () => {
  const script = new URL("print-rules.ts", import.meta.url).pathname;
  const printed = execFileSync("unshare", ["--net", process.execPath, script], { encoding: "utf8" });
  assert.deepEqual(essence(printed), essence(RULES));
});
