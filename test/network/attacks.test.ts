import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { GUEST_GATEWAY, ipv4Text, slotAddresses } from "../../src/worker/network/addresses.ts";
import { parseRange } from "../../src/worker/network/address-range.ts";
import { eventually } from "../functional/hearth.ts";
import { AttackerHost, type Attacker } from "./attacker.ts";
import { HostServices, hostAddresses, reachable } from "./host-services.ts";
import { cannotNetwork, METADATA_ADDRESS, Outside, run } from "./outside.ts";

const ECHO = 7;
const DISCARD = 9;
const DNS = 53;
const REFUSING = 4;

/** Addresses outside that nobody reaches who was not let, a few of each kind. */
const CLOSED = {
  private: ["10.213.77.5", "172.29.77.5", "192.168.213.77"],
  shared: ["100.77.213.5"],
  metadata: [METADATA_ADDRESS, "168.63.129.16", "100.100.100.200", "192.0.0.192", "169.254.170.2"],
  reserved: ["169.254.1.1", "192.0.2.77", "198.51.100.77", "203.0.113.77", "240.77.213.5"],
} as const;

/** As the guest's root, with raw sockets and the card itself in hand. */
describe("a guest's root", { skip: cannotNetwork() }, () => {
  let outside: Outside;
  let host: AttackerHost;
  let guest: Attacker;

  before(async () => {
    outside = await Outside.open(Object.values(CLOSED).flat());
    host = await AttackerHost.open();
    guest = await host.guest();
  });

  after(async () => {
    await host?.[Symbol.asyncDispose]();
    await outside?.[Symbol.asyncDispose]();
  });

  test("reaches the world: TCP, UDP, ICMP, and hears when it is refused", async () => {
    const { address } = outside;
    assert.equal(
      await guest.do(`knock ${address}:${ECHO} ${address}:${REFUSING}`),
      `${address}:${ECHO}=connected ${address}:${REFUSING}=refused`,
    );
    assert.equal(await guest.do(`udp ${address} ${ECHO} hello`), "hello");
    assert.equal(await guest.do(`ping ${address}`), "answered");
    // The world sees the host's address, not the guest's.
    assert.deepEqual(
      outside.arrivals.filter(({ what }) => what === "hello").map(({ from }) => from),
      [outside.hostAddress],
    );
  });

  test("moves megabytes both ways", async () => {
    for (const [command, port] of [
      ["send", DISCARD],
      ["take", 19],
    ] as const) {
      assert.match(await guest.do(`${command} ${outside.address} ${port} 20000000`), /^\d+$/);
    }
  });

  test("does not reach the host, on any of its addresses, nor what listens on its loopback", async () => {
    await using services = await HostServices.open();
    const addresses = hostAddresses();
    assert.ok(addresses.includes("127.0.0.1") && addresses.includes(outside.hostAddress));
    // The host's own end of the guest's pair is among them.
    assert.ok(addresses.some((address) => address.startsWith("198.18.")));
    for (const address of addresses) assert.ok(await reachable(address, services.everywhere), address);
    assert.ok(services.takeVisits() >= addresses.length);
    const gateway = [services.everywhere, services.udp].map((port) => `${ipv4Text(GUEST_GATEWAY)}:${port}`);
    assert.equal(await guest.do(`knock ${[...services.doors, ...gateway].join(" ")}`), "silence");
    for (const address of [outside.hostAddress, ipv4Text(GUEST_GATEWAY)])
      assert.equal(await guest.do(`ping ${address}`), "silence", address);
    assert.equal(services.takeVisits(), 0);
  });

  test("does not reach a port that the host publishes for something behind it", async () => {
    await using other = await Outside.open();
    const table = `hearth-test-published-${process.pid}`;
    const port = 8077;
    run("nft", "add", "table", "ip", table);
    try {
      run("nft", `add chain ip ${table} published { type nat hook prerouting priority dstnat; }`);
      run(
        "nft",
        `add rule ip ${table} published tcp dport ${port} fib daddr type local dnat to ${outside.address}:${ECHO}`,
      );
      assert.ok(other.reaches(other.hostAddress, port), "the port is not published at all");
      const doors = hostAddresses().map((address) => `${address}:${port}`);
      assert.equal(await guest.do(`knock ${doors.join(" ")}`), "silence");
    } finally {
      run("nft", "delete", "table", "ip", table);
    }
  });

  test("does not reach private, shared, metadata and reserved addresses, though the host does", async () => {
    const addresses = Object.values(CLOSED).flat();
    for (const address of addresses) assert.ok(await reachable(address, ECHO), address);
    const before = outside.arrivals.length;
    // A name server's port is open where there is one, not everywhere.
    const doors = addresses.flatMap((address) => [ECHO, DNS].map((port) => `${address}:${port}`));
    assert.equal(await guest.do(`knock ${doors.join(" ")}`), "silence");
    for (const address of addresses) assert.equal(await guest.do(`ping ${address}`), "silence", address);
    assert.equal(outside.arrivals.length, before);
  });

  test("reaches what is opened, and no metadata service or neighbour in it", async () => {
    const opened = ["10.213.77.0/24", "100.64.0.0/10", "192.168.213.77", "203.0.113.0/24"].map(parseRange);
    await using opener = await AttackerHost.open({ opened });
    const admitted = await opener.guest();
    const reached = ["10.213.77.5", "100.77.213.5", "192.168.213.77", "203.0.113.77"];
    const doors = Object.values(CLOSED)
      .flat()
      .map((address) => `${address}:${ECHO}`);
    assert.deepEqual(
      (await admitted.do(`knock ${doors.join(" ")}`)).split(" "),
      doors.filter((door) => reached.includes(door.replace(/:.*/, ""))).map((door) => `${door}=connected`),
    );
    for (const address of reached) assert.equal(await admitted.do(`ping ${address}`), "answered");
    // The host's own address stays closed, whatever is opened.
    assert.equal(await admitted.do(`ping ${outside.hostAddress}`), "silence");
  });

  test("asks a private name server for names, and nothing else of it", async () => {
    const [server] = CLOSED.private;
    await using resolver = await AttackerHost.open({ nameServers: [server] });
    const asking = await resolver.guest();
    const doors = [DNS, ECHO, DISCARD].map((port) => `${server}:${port}`);
    assert.equal(await asking.do(`knock ${doors.join(" ")}`), `${server}:${DNS}=refused`);
    outside.arrivals.length = 0;
    await asking.do(`udp ${server} ${DNS} question`);
    const asked = (): boolean => outside.arrivals.some(({ how }) => how === "dns");
    await eventually("that the question arrives", () => Promise.resolve(asked() || null));
    await asking.do(`udp ${server} ${ECHO} else`);
    assert.ok(!outside.arrivals.some(({ what }) => what === "else"));
  });

  test("does not reach another guest, nor the links to it", async () => {
    const other = await host.guest();
    assert.equal(await other.do(`udp ${outside.address} ${ECHO} other`), "other");
    // Where the other one is: all numbers that can be in use by now.
    const addresses = Array.from({ length: 24 }, (_, number) => slotAddresses(host.networks.block, number)).flatMap(
      ({ host: near, slot }) => [ipv4Text(near), ipv4Text(slot)],
    );
    assert.equal(await guest.do(`knock ${addresses.map((address) => `${address}:${ECHO}`).join(" ")}`), "silence");
  });

  test("is not believed when it speaks as somebody else", async () => {
    const others = ["10.1.2.3", "8.8.8.8", "127.0.0.1", "169.254.76.1", outside.hostAddress, "198.18.0.3"];
    outside.arrivals.length = 0;
    for (const source of others)
      assert.equal(await guest.do(`spoof ${source} ${outside.address} ${ECHO} forged`), "sent");
    assert.equal(await guest.do(`spoof 169.254.76.2 ${outside.address} ${ECHO} genuine`), "sent");
    assert.equal(await guest.do(`udp ${outside.address} ${ECHO} last`), "last");
    assert.deepEqual(
      outside.arrivals.map(({ what }) => what),
      ["genuine", "last"],
    );
    await guest.do("readdress 10.0.0.9");
    assert.equal(await guest.do(`udp ${outside.address} ${ECHO} moved`), "silence");
    await guest.do("readdress 169.254.76.2");
    assert.equal(await guest.do(`udp ${outside.address} ${ECHO} back`), "back");
  });

  test("gets nowhere with frames of its own making", async () => {
    const everyone = "ffffffffffff020000000001";
    const frames = [
      // IPv6 to all nodes, LLDP, a VLAN, a frame of a single byte, one that is too long.
      `${everyone}86dd6000000000003aff${"fe80".padEnd(32, "0")}${"ff02".padEnd(31, "0")}1`,
      `${everyone}88cc${"00".repeat(60)}`,
      `${everyone}810000010800${"45".repeat(40)}`,
      "00",
      `${everyone}0800${"45".repeat(1480)}`,
    ];
    for (const frame of frames) assert.match(await guest.do(`frame ${frame}`), /sent|too long|Invalid/);
    assert.equal(await guest.do(`udp ${outside.address} ${ECHO} alive`), "alive");
  });

  test("that floods does not silence another guest", async () => {
    const other = await host.guest();
    const flood = guest.do(`flood ${outside.address} ${DISCARD} 2`);
    for (let i = 0; i < 5; i++) assert.equal(await other.do(`udp ${outside.address} ${ECHO} through`), "through");
    assert.ok(Number(await flood) > 100);
  });

  test("reaches a name server of the host's own, and nothing else there", async () => {
    await using resolver = await AttackerHost.open({ nameServers: [outside.hostAddress] });
    const asking = await resolver.guest();
    const names = createSocket("udp4", (message, remote) => names.send(message, remote.port, remote.address));
    const elsewhere = createSocket("udp4", () => assert.fail("reached"));
    try {
      names.bind(53, outside.hostAddress);
      elsewhere.bind(54, outside.hostAddress);
      await Promise.all([once(names, "listening"), once(elsewhere, "listening")]);
      assert.equal(await asking.do(`udp ${outside.hostAddress} 53 query`), "query");
      assert.equal(await asking.do(`udp ${outside.hostAddress} 54 query`), "silence");
      assert.equal(await guest.do(`udp ${outside.hostAddress} 53 query`), "silence");
    } finally {
      names.close();
      elsewhere.close();
    }
  });

  test("leaves nothing behind", async () => {
    const short = await AttackerHost.open();
    await short.guest();
    const prefix = short.networks.links.slice(0, -1);
    const links = (): string[] =>
      run("ip", "-o", "link")
        .split("\n")
        .filter((line) => line.includes(prefix));
    assert.ok(links().length > 0);
    await short[Symbol.asyncDispose]();
    for (let waitedMs = 0; links().length > 0; waitedMs += 50) {
      assert.ok(waitedMs < 10_000, links().join("\n"));
      await sleep(50);
    }
    assert.ok(!run("nft", "list", "tables").split("\n").includes(`table ip hearth${short.networks.block}`));
  });
});
