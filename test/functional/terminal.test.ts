import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { deploy } from "../../src/cli/deploy.ts";
import { zipOf } from "./functions.ts";
import { hearthCommand, MAIN, run, startHearth } from "./hearth.ts";

/* What a function writes must not command the terminal of whoever reads it. */

const SCRIPT = "/usr/bin/script";
/** Sets the title, clears the screen by a C1 control, and hides what comes. */
const HOSTILE = "\u001b]0;owned\u0007\u009b2J\u001b[8m";
const CODE = `
const hostile = ${JSON.stringify(HOSTILE)};
export const handler = async ({ fail }) => {
  process.stdout.write("written " + hostile + "\\n");
  if (fail) throw new Error("thrown " + hostile);
  return "done";
};`;

/** Control characters in a text but tab, newline, carriage return and colours. */
// eslint-disable-next-line no-control-regex
const commandsIn = (text: string): RegExpMatchArray | null =>
  // eslint-disable-next-line no-control-regex
  text.replaceAll(/\u001b\[(?:\d;?)*(?<!\b8)m/g, "").match(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/);

test("a function's escapes are shown, not sent", async (context) => {
  await using hearth = await startHearth();
  const zip = await zipOf({ "index.mjs": CODE });
  await deploy(hearth.client(), { name: "hostile", zip, runtime: "nodejs24.x", handler: "index.handler" });
  const invoked = await hearthCommand(hearth, ["invoke", "hostile", "--tail"]);
  assert.equal(invoked.code, 0, invoked.stderr);
  assert.ok(invoked.stderr.includes(HOSTILE), "a pipe gets the bytes");
  const logs = await hearthCommand(hearth, ["logs", "hostile"]);
  assert.ok(logs.stdout.includes("written \\x1b]0;owned\\x07\\x9b2J\\x1b[8m"), logs.stdout);
  assert.equal(commandsIn(logs.stdout), null);
  const json = await hearthCommand(hearth, ["logs", "hostile", "--json"]);
  assert.equal(commandsIn(json.stdout), null);
  assert.ok(
    (
      JSON.parse(json.stdout.split("\n").find((line) => line.includes("written")) ?? "") as { text: string }
    ).text.includes(HOSTILE),
  );
  assert.ok(
    (await hearthCommand(hearth, ["logs", "hostile", "--raw"])).stdout.includes(HOSTILE),
    "--raw gives the bytes",
  );

  if (!existsSync(SCRIPT)) return context.skip("script(1) is missing, so there is no terminal");
  const onTerminal = async (command: string): Promise<string> => {
    const env = { ...hearth.environment, TERM: "xterm" };
    return (await run(SCRIPT, ["-qec", `${process.execPath} ${MAIN} ${command}`, "/dev/null"], { env })).stdout;
  };
  for (const command of [`invoke hostile --tail`, `invoke hostile --tail --payload '{"fail":true}'`, "logs hostile"]) {
    const text = await onTerminal(command);
    assert.ok(text.includes("written \\x1b]0;owned\\x07"), text);
    assert.equal(commandsIn(text), null, command);
  }
});
