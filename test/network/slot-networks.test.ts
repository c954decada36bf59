import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { SlotNetworks } from "../../src/worker/network/slot-networks.ts";
import { eventually } from "../functional/hearth.ts";
import { cannotNetwork, run } from "./outside.ts";

const skip = cannotNetwork();

const linksOf = (networks: SlotNetworks): number =>
  run("ip", "-o", "link").split(networks.links.slice(0, -1)).length - 1;

test("networks come in sequence and at once, ready or not, and go when they are given back", { skip }, async () => {
  const descriptors = readdirSync("/proc/self/fd").length;
  const networks = await SlotNetworks.open({ nameServers: [], ready: 0 });
  const some = [await networks.take(), await networks.take(), await networks.take()];
  some.push(...(await Promise.all(Array.from({ length: 5 }, () => networks.take()))));
  await eventually("as many links as networks", () => Promise.resolve(linksOf(networks) === some.length || null));
  for (const network of some) network[Symbol.dispose]();
  await eventually("that the links are gone", () => Promise.resolve(linksOf(networks) === 0 || null));
  const again = await networks.take();
  assert.deepEqual(again.guest, { address: "169.254.76.2/30", gateway: "169.254.76.1", nameServers: [] });
  again[Symbol.dispose]();
  await networks[Symbol.asyncDispose]();
  await assert.rejects(networks.take(), /closed/);
  const closed = (): boolean => readdirSync("/proc/self/fd").length <= descriptors + 4;
  await eventually("that the descriptors are closed", () => Promise.resolve(closed() || null));
});

test("as many stand ready as are wanted", { skip }, async () => {
  await using networks = await SlotNetworks.open({ nameServers: [], ready: 3 });
  await eventually("that three are ready", () => Promise.resolve(networks.ready === 3 || null));
  using _ = await networks.take();
  assert.equal(networks.ready, 2);
  await eventually("that three are ready again", () => Promise.resolve(networks.ready === 3 || null));
});

test("who waits when all is closed is told", { skip }, async () => {
  const networks = await SlotNetworks.open({ nameServers: [], ready: 0 });
  (await networks.take())[Symbol.dispose]();
  const waiting = assert.rejects(networks.take(), /closed/);
  await networks[Symbol.asyncDispose]();
  await waiting;
});
