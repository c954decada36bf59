import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CONSTRAINTS } from "./constraints.ts";
import { encodeError } from "./encode.ts";
import { ERRORS, OPERATIONS } from "./model.ts";
import { ServiceError } from "../../wire/errors.ts";

const body = (name: string): unknown => JSON.parse(String(encodeError(new ServiceError(name, 400, "why")).body));

describe("the model", () => {
  it("has every operation of the API, each with a path of its own", () => {
    assert.equal(OPERATIONS.size, 88);
    const routes = [...OPERATIONS.values()].map(
      ({ method, path, fixedQuery }) => `${method} ${path}?${new URLSearchParams([...fixedQuery]).toString()}`,
    );
    assert.equal(new Set(routes).size, 88);
    for (const { name, path, input } of OPERATIONS.values()) {
      const labels = input.members.filter(({ binding }) => binding.at === "label").map((member) => member.name);
      assert.deepEqual(
        labels.map((label) => path.includes(`{${label}}`)),
        labels.map(() => true),
        name,
      );
    }
  });

  it("knows where members travel and which are required", () => {
    const invoke = OPERATIONS.get("Invoke");
    assert.deepEqual(
      [invoke?.method, invoke?.path, invoke?.status],
      ["POST", "/2015-03-31/functions/{FunctionName}/invocations", 200],
    );
    assert.deepEqual(Object.fromEntries((invoke?.input.members ?? []).map(({ name, binding }) => [name, binding])), {
      FunctionName: { at: "label", name: "FunctionName" },
      InvocationType: { at: "header", name: "x-amz-invocation-type" },
      LogType: { at: "header", name: "x-amz-log-type" },
      ClientContext: { at: "header", name: "x-amz-client-context" },
      DurableExecutionName: { at: "header", name: "x-amz-durable-execution-name" },
      Payload: { at: "payload" },
      Qualifier: { at: "query", name: "Qualifier" },
      TenantId: { at: "header", name: "x-amz-tenant-id" },
    });
    const required = OPERATIONS.get("CreateFunction")?.input.members.filter((member) => member.required);
    assert.deepEqual(
      required?.map(({ name }) => name),
      ["FunctionName", "Role", "Code"],
    );
  });

  it("has every member that a constraint names", () => {
    const structures = new Map<string, ReadonlySet<string>>();
    for (const { input } of OPERATIONS.values()) {
      const waiting = [input];
      for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
        if (structures.has(at.name)) continue;
        structures.set(at.name, new Set(at.members.map(({ name }) => name)));
        for (const { shape } of at.members) if (shape.kind === "structure") waiting.push(shape);
      }
    }
    for (const [structure, members] of CONSTRAINTS) {
      for (const member of Object.keys(members))
        assert.ok(structures.get(structure)?.has(member), `${structure}.${member}`);
    }
  });

  it("spells an error's message as its shape does", () => {
    assert.deepEqual(body("ResourceNotFoundException"), { Message: "why" });
    assert.deepEqual(body("ResourceConflictException"), { message: "why" });
    assert.deepEqual(body("ValidationException"), { message: "why" });
    assert.equal(ERRORS.get("TooManyRequestsException")?.status, 429);
    const throttle = new ServiceError("TooManyRequestsException", 429, "Rate Exceeded.", {
      Reason: "CallerRateLimitExceeded",
      retryAfterSeconds: "1",
    });
    const { headers, body: text } = encodeError(throttle);
    assert.equal(headers["retry-after"], "1");
    assert.deepEqual(JSON.parse(String(text)), { Reason: "CallerRateLimitExceeded", message: "Rate Exceeded." });
  });
});
