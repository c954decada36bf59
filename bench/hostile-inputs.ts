import { InvokeCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { buffer } from "node:stream/consumers";
import { ZipFile } from "yazl";
import { deploy } from "../src/cli/deploy.ts";
import { HOSTILE_SHAPES } from "../src/store/code/hostile-zips.ts";

/*
 * What strangers, functions and clients have found to hold up a loop that serves everybody, against a Hearth without
 * authentication: each is sent or run once, and resolves when it is over. What is answered is no matter here.
 */

/** Where they go. */
export interface HostileTarget {
  readonly client: LambdaClient;
  readonly endpoint: string;
}

export interface HostileInput {
  readonly name: string;
  readonly send: (target: HostileTarget) => Promise<void>;
}

const FUNCTIONS = "/2015-03-31/functions";
const invocationsOf = (name: string): string => `${FUNCTIONS}/${name}/invocations`;
const MIB = 1024 * 1024;
const BODY_BYTES = 58 * MIB;
const EVENT_BYTES = 6_000_000;
/** Sizes of archives: the largest of them is some 8 MB then. */
const SHAPE_SIZE = 64;

/** Functions that the inputs need. */
export const ABUSER = "abuser";
export const GLUTTON = "glutton";
const ABUSES = `
import { writeSync } from "node:fs";
const lines = Buffer.from("y\\n".repeat(32768));
const until = (ms, work) => { for (const endMs = Date.now() + ms; Date.now() < endMs;) work(); };
const tryWrite = (bytes) => { try { writeSync(1, bytes); } catch {} };
const kept = [];
const instance = crypto.randomUUID();
const ops = {
  instance: () => instance,
  flood: ({ ms }) => until(ms, () => tryWrite(lines)),
  drops: () => until(200, () => tryWrite("y")),
  records: () => { for (let n = 0; n < 20_000; n += 1) console.log("line " + n); },
  big: () => "x".repeat(6 * 1024 * 1024 - 2),
  memory: ({ mb }) => { while (kept.length * 16 < mb) kept.push(Buffer.alloc(16 << 20, 1)); return kept.length; },
  end: () => process.exit(1),
};
export const handler = async (event) => ops[event?.op]?.(event) ?? null;
`;
/** A guest with so much written, as its end frees it. */
const WRITTEN_MB = 2_048;

const post = async ({ endpoint }: HostileTarget, path: string, body: string | Buffer): Promise<void> => {
  const agent = new Agent();
  const sent = request(new URL(path, endpoint), {
    method: "POST",
    agent,
    headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
  });
  // Who refuses a body need not read it.
  const over = new Promise<void>((resolve) => {
    sent.on("response", (answer) => answer.on("close", resolve).resume());
    sent.on("error", () => resolve());
  });
  sent.end(body);
  await over;
  agent.destroy();
};

/** The answer's text, or the kind of error that it is instead. */
export const invoke = async ({ client }: HostileTarget, name: string, event: unknown): Promise<string> => {
  const answer = await client.send(
    new InvokeCommand({ FunctionName: name, Payload: Buffer.from(JSON.stringify(event)) }),
  );
  return answer.FunctionError ?? Buffer.from(answer.Payload ?? []).toString();
};

const create = (settings: string, name = "made"): string =>
  `{"FunctionName":"${name}","Role":"arn:aws:iam::123456789012:role/r","Runtime":"nodejs24.x","Handler":"index.handler",${settings}}`;

/** Members of an object, or elements of an array, so many bytes of them. */
const many = (bytes: number, element: (n: number) => string): string => {
  const elements: string[] = [];
  for (let length = 0, n = 0; length < bytes; n += 1) {
    const text = element(n);
    elements.push(text);
    length += text.length + 1;
  }
  return elements.join(",");
};

const json = (name: string, path: string, body: () => string): HostileInput => ({
  name,
  send: (target) => post(target, path, body()),
});

const JSON_INPUTS: readonly HostileInput[] = [
  json("58 MB of small variables", FUNCTIONS, () =>
    create(`"Environment":{"Variables":{${many(BODY_BYTES, (n) => `"a${n}":""`)}}}`),
  ),
  json("58 MB of brackets", FUNCTIONS, () => create(`"Layers":${"[".repeat(BODY_BYTES)}`)),
  json("a megabyte of members that are no setting", FUNCTIONS, () => create(many(MIB, (n) => `"a${n}":0`))),
  json("58 MB of base64 that is none", FUNCTIONS, () => create(`"Code":{"ZipFile":"${"A".repeat(BODY_BYTES)}*"}`)),
  json("an event of 6 MB of digits", invocationsOf(ABUSER), () => `[${"0,".repeat(EVENT_BYTES / 2 - 2)}0]`),
  json("an event of 6 MB of brackets", invocationsOf(ABUSER), () => "[".repeat(EVENT_BYTES)),
  json("an event of 6 MB of escapes", invocationsOf(ABUSER), () => `"${"\\u0041".repeat(EVENT_BYTES / 6 - 1)}"`),
];

const ARCHIVE_INPUTS: readonly HostileInput[] = Object.entries(HOSTILE_SHAPES).map(([shape, { make }], n) => ({
  name: `an archive: ${shape}`,
  send: (target) =>
    post(
      target,
      FUNCTIONS,
      create(`"Code":{"ZipFile":"${make(SHAPE_SIZE).toString("base64")}"}`, `archive-${String(n)}`),
    ),
}));

const pipelined: HostileInput = {
  name: "3,000 requests on one connection at once",
  send: async ({ endpoint }) => {
    const { hostname, port } = new URL(endpoint);
    const socket = connect(Number(port), hostname);
    // Hearth may close the connection instead of answering all of it.
    const over = new Promise((resolve) => socket.on("error", () => {}).on("close", resolve));
    socket.resume().end(`GET ${FUNCTIONS} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(3_000));
    await over;
  },
};

const abuse = (name: string, event: unknown): HostileInput => ({
  name,
  send: async (target) => void (await invoke(target, ABUSER, event)),
});

const FUNCTION_INPUTS: readonly HostileInput[] = [
  abuse("a function that prints without end", { op: "flood", ms: 2_000 }),
  abuse("a function that prints byte by byte", { op: "drops" }),
  abuse("a function that prints 20,000 records", { op: "records" }),
  abuse("an answer of 6 MB", { op: "big" }),
  {
    name: `a function ends that has written ${String(WRITTEN_MB)} MB`,
    send: async (target) => {
      const blocks = await invoke(target, GLUTTON, { op: "memory", mb: WRITTEN_MB });
      if (blocks !== String(WRITTEN_MB / 16))
        throw new Error(`${String(WRITTEN_MB)} MB could not be written: ${blocks}`);
      const ended = invoke(target, GLUTTON, { op: "end" });
      // A neighbour works meanwhile.
      for (let n = 0; n < 20; n += 1) await invoke(target, ABUSER, {});
      await ended;
    },
  },
];

export const HOSTILE_INPUTS: readonly HostileInput[] = [
  ...JSON_INPUTS,
  ...ARCHIVE_INPUTS,
  pipelined,
  ...FUNCTION_INPUTS,
];

/** Makes what the inputs need, and calls it once, so that what comes first is behind everybody. */
export const prepareHostileInputs = async (target: HostileTarget): Promise<void> => {
  const archive = new ZipFile();
  archive.addBuffer(Buffer.from(ABUSES), "index.mjs");
  archive.end();
  const zip = await buffer(archive.outputStream);
  const common = { zip, runtime: "nodejs24.x", handler: "index.handler", timeoutS: 60 };
  await deploy(target.client, { ...common, name: ABUSER, memoryMb: 512 });
  await deploy(target.client, { ...common, name: GLUTTON, memoryMb: 3_008 });
  await invoke(target, ABUSER, {});
};
