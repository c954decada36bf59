import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "../functional/functions.ts";
import { startHearth, type TestHearth } from "../functional/hearth.ts";

/* Where programs of functions have their memory: known from one microVM, it should not be known of the next. */

/** What a program that can lie anywhere (cat) sees of itself. */
const NODE = `
import { execFileSync } from "node:child_process";
export const handler = () => execFileSync("/bin/cat", ["/proc/self/maps"]).toString().trim().split("\\n");
`;
const MICROVMS = 3;

let hearth: TestHearth;
let client: LambdaClient;

before(async () => {
  hearth = await startHearth("--network", "none", "--reuse", "never");
  client = hearth.client();
  const zip = await zipOf({ "index.mjs": NODE });
  await deploy(client, {
    name: "maps",
    zip,
    runtime: "nodejs24.x",
    handler: "index.handler",
    memoryMb: 256,
    timeoutS: 20,
  });
});

after(() => hearth?.[Symbol.asyncDispose]());

const mapsOf = async (): Promise<string[]> => (await invoke(client, "maps", {})).value as string[];

/** First address of a kind of mapping. */
const addressOf = (maps: readonly string[], kind: RegExp): string => {
  const line = maps.find((each) => kind.test(each));
  assert.ok(line !== undefined, `no mapping ${String(kind)} in:\n${maps.join("\n")}`);
  return line.replace(/-.*/, "");
};

test("libraries, program, heap, stack and vDSO lie elsewhere in every microVM", async () => {
  const seen: string[][] = [];
  for (let i = 0; i < MICROVMS; i++) seen.push(await mapsOf());
  for (const kind of [/\/libc[.-]/, /\/ld-/, /\/cat$/, /\[heap\]/, /\[stack\]/, /\[vdso\]/]) {
    const addresses = seen.map((maps) => addressOf(maps, kind));
    assert.equal(new Set(addresses).size, MICROVMS, `${String(kind)}: ${addresses.join(" ")}`);
  }
});

test("nothing of a program can be both written and executed", async () => {
  const maps = await mapsOf();
  assert.deepEqual(
    maps.filter((line) => /^\S+ .w.?x/.test(line) || /^\S+ ..x.*\[(heap|stack)\]/.test(line)),
    [],
  );
});
