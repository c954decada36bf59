import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { ACCOUNT, arnOf, KEYS, REGION, ROLE, startHarness, zipOf } from "./harness.ts";
import type { Harness } from "./harness.ts";

const AWS = "/usr/bin/aws";
const run = promisify(execFile);
const CREATE =
  `--runtime nodejs24.x --handler index.handler --role ${ROLE} --environment Variables={A_B=1} --publish`.split(" ");

/** The output of one `aws lambda` command, parsed. */
const aws = async (at: Harness, ...args: readonly string[]): Promise<Record<string, unknown>> => {
  const env = {
    PATH: "/usr/bin:/bin",
    HOME: at.directory,
    AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
    AWS_DEFAULT_REGION: REGION,
    AWS_PAGER: "",
  };
  const { stdout } = await run(AWS, ["--endpoint-url", at.endpoint, "lambda", ...args], { env });
  return stdout.trim() === "" ? {} : (JSON.parse(stdout) as Record<string, unknown>);
};

describe("the AWS CLI", { skip: existsSync(AWS) ? false : "awscli is not installed" }, () => {
  it("creates, invokes, updates, lists and deletes a function", async () => {
    await using at = await startHarness();
    const zip = join(at.directory, "f.zip");
    const out = join(at.directory, "out.json");
    await writeFile(zip, await zipOf({ "index.js": "exports.handler" }));
    const name = ["--function-name", "f"];
    const created = await aws(at, "create-function", ...name, ...CREATE, "--zip-file", `fileb://${zip}`);
    assert.deepEqual([created["FunctionArn"], created["Version"]], [`${arnOf("f")}:1`, "1"]);
    await aws(at, "wait", "function-active-v2", ...name);

    const payload = ["--cli-binary-format", "raw-in-base64-out", "--payload", '{"hello":"wörld"}'];
    for (const target of ["f", arnOf("f"), `${arnOf("f")}:1`, "f:$LATEST", `${ACCOUNT}:function:f`]) {
      const invoked = await aws(at, "invoke", "--function-name", target, "--log-type", "Tail", ...payload, out);
      assert.equal(invoked["StatusCode"], 200, target);
      assert.match(Buffer.from(String(invoked["LogResult"]), "base64").toString(), /REPORT/);
      assert.deepEqual(JSON.parse(await readFile(out, "utf8")), { hello: "wörld" });
    }
    const queued = await aws(
      at,
      "invoke",
      ...name,
      "--qualifier",
      "$LATEST",
      "--invocation-type",
      "Event",
      ...payload,
      out,
    );
    assert.equal(queued["StatusCode"], 202);

    await aws(at, "update-function-configuration", ...name, "--timeout", "30");
    await aws(at, "wait", "function-updated-v2", ...name);
    await aws(at, "update-function-code", ...name, "--zip-file", `fileb://${zip}`);
    await aws(at, "tag-resource", "--resource", arnOf("f"), "--tags", "a=b c");
    const found = await aws(at, "get-function", ...name);
    assert.deepEqual(found["Tags"], { a: "b c" });
    assert.equal((found["Configuration"] as Record<string, unknown>)["Timeout"], 30);
    await aws(at, "untag-resource", "--resource", arnOf("f"), "--tag-keys", "a", "c");
    assert.deepEqual((await aws(at, "list-tags", "--resource", arnOf("f")))["Tags"], {});
    assert.equal(((await aws(at, "list-functions"))["Functions"] as unknown[]).length, 1);
    assert.equal(((await aws(at, "list-versions-by-function", ...name))["Versions"] as unknown[]).length, 2);
    await aws(at, "get-account-settings");
    await aws(at, "delete-function", ...name);
    await assert.rejects(
      aws(at, "get-function", ...name),
      /ResourceNotFoundException.*Function not found: arn:aws:lambda/,
    );
  });
});
