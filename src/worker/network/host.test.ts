import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultLink } from "./host.ts";

const HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

test("the default route with the lowest metric leads out", () => {
  assert.equal(
    defaultLink(
      `${HEADER}wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n` +
        "eth1\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
        "tun0\t00000000\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" +
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
    ),
    "eth1",
  );
  assert.equal(defaultLink(HEADER), null);
  assert.equal(defaultLink(""), null);
});
