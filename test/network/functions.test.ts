import assert from "node:assert/strict";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { after, before, describe, test } from "node:test";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "../functional/functions.ts";
import { startHearth, type TestHearth } from "../functional/hearth.ts";
import { HostServices } from "./host-services.ts";
import { cannotNetwork, METADATA_ADDRESS, Outside } from "./outside.ts";

const ECHO = 7;
/** Addresses that the machine outside has too. */
const PRIVATE = ["10.214.78.5", "172.30.78.5"];

/** `knock`: which of ADDRESS:PORT answers at all; `echo`: what comes back; `lookup`: a name's address. */
const NODE = `
import fs from "node:fs";
import dns from "node:dns/promises";
import net from "node:net";
import os from "node:os";
const connect = (door) => new Promise((resolve) => {
  const [host, port] = door.split(":");
  const socket = net.connect({ host, port: Number(port) });
  const end = (answer) => () => { socket.destroy(); resolve(answer); };
  socket.on("connect", end(door + " connected"));
  socket.on("error", (error) => end(error.code === "ECONNREFUSED" ? door + " refused" : null)());
  setTimeout(end(null), 700);
});
const ops = {
  knock: async ({ doors }) => (await Promise.all(doors.map(connect))).filter((answer) => answer !== null),
  lookup: async ({ name }) => (await dns.lookup(name).catch((error) => ({ address: error.code }))).address,
  fetch: ({ host, port, text }) => new Promise((resolve, reject) => {
    const socket = net.connect({ host, port }, () => socket.write(text));
    socket.on("data", (data) => { socket.destroy(); resolve(data.toString()); });
    socket.on("error", reject);
  }),
  files: () => ["/etc/resolv.conf", "/etc/hosts"].map((path) => fs.readFileSync(path, "utf8")),
  rights: () => ["/etc/resolv.conf", "/etc/hosts"].map((path) => {
    try { fs.writeFileSync(path, "nameserver 6.6.6.6"); return "written"; } catch (error) { return error.code; }
  }),
  links: () => Object.fromEntries(Object.entries(os.networkInterfaces())
    .map(([name, addresses]) => [name, addresses.map(({ cidr }) => cidr)])),
};
export const handler = (event) => ops[event.op](event);
`;

const PYTHON = `
import socket
def lambda_handler(event, context):
    address = socket.gethostbyname(event["name"])
    with socket.create_connection((event["name"], event["port"]), timeout=5) as connection:
        connection.sendall(event["text"].encode())
        return {"address": address, "back": connection.recv(100).decode()}
`;

describe("a function with a network", { skip: cannotNetwork() }, () => {
  let outside: Outside;
  let hearth: TestHearth;
  let client: LambdaClient;
  const call = async (event: unknown): Promise<unknown> => {
    const { error, value } = await invoke(client, "net", event);
    assert.equal(error, undefined, JSON.stringify(value));
    return value;
  };

  before(async () => {
    outside = await Outside.open(PRIVATE);
    hearth = await startHearth("--network", "nat", "--name-server", outside.address);
    client = hearth.client();
    const zip = await zipOf({ "index.mjs": NODE });
    const settings = { zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256, timeoutS: 20 };
    await deploy(client, { name: "net", ...settings });
  });

  after(async () => {
    await hearth?.[Symbol.asyncDispose]();
    await outside?.[Symbol.asyncDispose]();
  });

  test("reaches a server outside by its name, and is seen as the host", async () => {
    assert.equal(await call({ op: "lookup", name: "outside.test" }), outside.address);
    assert.equal(await call({ op: "lookup", name: "absent.test" }), "ENOTFOUND");
    assert.equal(await call({ op: "fetch", host: "outside.test", port: ECHO, text: "from node" }), "from node");
    assert.deepEqual(
      outside.arrivals.filter(({ what }) => what === "from node").map(({ from }) => from),
      [outside.hostAddress],
    );
  });

  test("finds its resolver and localhost, and cannot change them", async () => {
    const [resolver, hosts] = (await call({ op: "files" })) as [string, string];
    assert.equal(resolver, `nameserver ${outside.address}\n`);
    assert.match(hosts, /^127\.0\.0\.1\s+localhost$/m);
    assert.equal(await call({ op: "lookup", name: "localhost" }), "127.0.0.1");
    for (const code of (await call({ op: "rights" })) as string[]) assert.match(code, /EROFS|EACCES/);
    assert.deepEqual(((await call({ op: "links" })) as Record<string, string[]>)["eth0"], ["169.254.76.2/30"]);
  });

  test("does not reach the host, its loopback or the metadata address", async () => {
    await using services = await HostServices.open();
    const own = new URL(hearth.about.endpoint).port;
    const api = services.doors.map((door) => door.replace(/:\d+$/, `:${own}`));
    const doors = [...new Set([...services.doors, ...api])].filter((door) => !door.startsWith("127."));
    assert.deepEqual(await call({ op: "knock", doors: [...doors, `${METADATA_ADDRESS}:80`] }), []);
    assert.equal(services.takeVisits(), 0);
    // 127.0.0.1 is the guest's own: nobody of the host's is there.
    const inside = [`127.0.0.1:${services.everywhere}`, `127.0.0.1:${own}`];
    assert.deepEqual(
      await call({ op: "knock", doors: inside }),
      inside.map((door) => `${door} refused`),
    );
  });

  test("reaches private addresses that are opened, and no others", async () => {
    const doors = PRIVATE.map((address) => `${address}:${ECHO}`);
    assert.deepEqual(await call({ op: "knock", doors }), []);
    await using opening = await startHearth(
      "--network-allow",
      `${PRIVATE[0]}/32`,
      "--network-allow",
      "192.168.78.0/24",
    );
    const zip = await zipOf({ "index.mjs": NODE });
    const settings = { zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256, timeoutS: 20 };
    await deploy(opening.client(), { name: "net", ...settings });
    const { value } = await invoke(opening.client(), "net", { op: "knock", doors });
    assert.deepEqual(value, [`${doors[0]} connected`]);
  });

  test("has a network in Python too, in every slot", async () => {
    const zip = await zipOf({ "lambda_function.py": PYTHON });
    const settings = { zip, runtime: "python3.11", handler: "lambda_function.lambda_handler", timeoutS: 20 };
    await deploy(client, { name: "py", memoryMb: 128, reuse: "never", ...settings });
    const answers = await Promise.all(
      ["one", "two", "three"].map((text) => invoke(client, "py", { name: "outside.test", port: ECHO, text })),
    );
    assert.deepEqual(
      answers.map(({ value }) => value),
      ["one", "two", "three"].map((back) => ({ address: outside.address, back })),
    );
  });
});
