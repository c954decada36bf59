import assert from "node:assert/strict";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { after, before, describe, test } from "node:test";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "../functional/functions.ts";
import { eventually, startHearth, type TestHearth } from "../functional/hearth.ts";
import { cannotNetwork, Outside, run } from "./outside.ts";

const ECHO = 7;

/** Says its address on eth0, or null, and what comes back from a server that the event names. */
const CODE = `
import net from "node:net";
import os from "node:os";
export const handler = ({ host, text }) => new Promise((resolve, reject) => {
  const address = os.networkInterfaces()["eth0"]?.[0].cidr ?? null;
  const socket = net.connect({ host, port: ${ECHO} }, () => socket.write(text));
  socket.on("data", (data) => { socket.destroy(); resolve({ address, back: data.toString() }); });
  socket.on("error", (error) => resolve({ address, back: error.code }));
});
`;

const expected = (back: string): unknown => ({ address: "169.254.76.2/30", back });

const deployTo = async (client: LambdaClient): Promise<void> => {
  const zip = await zipOf({ "index.mjs": CODE });
  const settings = { runtime: "nodejs24.x", handler: "index.handler", memoryMb: 128, timeoutS: 20 };
  await deploy(client, { name: "f", zip, ...settings });
};

/** What a Hearth's networks have on the host: links, addresses, and its table. */
const held = (links: string): string[] => {
  const prefix = links.slice(0, -1);
  const block = prefix.replaceAll(/\D/g, "");
  return [
    ...run("ip", "-o", "address").split("\n"),
    ...run("ip", "-o", "link").split("\n"),
    ...run("ip", "route").split("\n"),
    ...run("nft", "list", "tables").split("\n"),
  ].filter((line) => line.includes(prefix) || line === `table ip hearth${block}`);
};

const nothingHeld = (links: string): Promise<true> =>
  eventually("that nothing is left on the host", () => Promise.resolve(held(links).length === 0 || null));

const linksOf = (hearth: TestHearth): string => {
  const { mode, links } = hearth.about.network;
  assert.equal(mode, "nat");
  assert.ok(links !== null);
  assert.ok(held(links).length > 3);
  return links;
};

describe("networks of a Hearth", { skip: cannotNetwork() }, () => {
  let outside: Outside;

  before(async () => {
    outside = await Outside.open();
  });

  after(async () => {
    await outside?.[Symbol.asyncDispose]();
  });

  test("two at once do not meet, and what one leaves is gone however it ends", async () => {
    await using one = await startHearth();
    await using two = await startHearth("--network", "nat");
    const [links, others] = [linksOf(one), linksOf(two)];
    assert.notEqual(links, others);
    const clients = [one.client(), two.client()];
    await Promise.all(clients.map(deployTo));
    const call = async (client: LambdaClient | undefined, text: string): Promise<unknown> => {
      assert.ok(client);
      return (await invoke(client, "f", { host: outside.address, text })).value;
    };
    assert.deepEqual(await call(clients[0], "one"), expected("one"));
    assert.deepEqual(await call(clients[1], "two"), expected("two"));

    await one.stop("SIGKILL");
    await nothingHeld(links);
    assert.deepEqual(await call(clients[1], "still"), expected("still"));

    // A crash's successor starts as if nothing had been.
    await one.start();
    const again = linksOf(one);
    const answer = await invoke(one.client(), "f", { host: outside.address, text: "again" });
    assert.deepEqual(answer.value, expected("again"));
    await one.stop("SIGTERM");
    await nothingHeld(again);
    await two.stop("SIGTERM");
    await nothingHeld(others);
  });

  test("a Hearth's rules cannot be taken away by others", async () => {
    await using hearth = await startHearth();
    const block = linksOf(hearth).replaceAll(/\D/g, "");
    assert.throws(() => run("nft", "delete", "table", "ip", `hearth${block}`));
    assert.throws(() => run("nft", "flush", "table", "ip", `hearth${block}`));
    assert.match(run("nft", "list", "table", "ip", `hearth${block}`), /fib daddr type != unicast drop/);
  });

  test("with --network none a function has its loopback only", async () => {
    await using hearth = await startHearth("--network", "none");
    assert.deepEqual(hearth.about.network, { mode: "none", reason: "switched off", links: null });
    const client = hearth.client();
    await deployTo(client);
    const { value } = await invoke(client, "f", { host: outside.address, text: "no" });
    assert.deepEqual(value, { address: null, back: "ENETUNREACH" });
  });
});
