import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeFields, encodeFields } from "../wire/shim-codec.ts";
import { FailureField, FailureOutcome } from "../wire/shim-protocol.ts";
import type { Field } from "../wire/shim-protocol.ts";
import { failureTexts, readFailure } from "./failure.ts";
import type { FailureTexts } from "./failure.ts";

const textsOf = (...fields: Field[]): FailureTexts & { payload: unknown } => {
  const failure = readFailure(decodeFields(encodeFields(fields)));
  assert.ok(failure);
  const texts = failureTexts(failure, "rid", 3_000);
  return { ...texts, payload: JSON.parse(Buffer.from(texts.error.body).toString()) as unknown };
};

test("no outcome is no failure", () => {
  assert.equal(readFailure(decodeFields(encodeFields([]))), null);
});

test("a timeout reads as Lambda's", () => {
  const texts = textsOf([FailureField.Outcome, FailureOutcome.TimedOut]);
  assert.deepEqual(texts.payload, {
    errorType: "Sandbox.Timedout",
    errorMessage: "RequestId: rid Error: Task timed out after 3.00 seconds",
  });
  assert.equal(texts.status, "timeout");
});

const exited = (...fields: Field[]): unknown =>
  (textsOf([FailureField.Outcome, FailureOutcome.Exited], ...fields).payload as { errorMessage: string }).errorMessage;

test("an exit tells its status or signal", () => {
  const prefix = "RequestId: rid Error: ";
  assert.equal(exited([FailureField.ExitCode, 127]), `${prefix}Runtime exited with error: exit status 127`);
  assert.equal(exited([FailureField.Signal, 9]), `${prefix}Runtime exited with error: signal: killed`);
  assert.equal(exited([FailureField.Signal, 11]), `${prefix}Runtime exited with error: signal: segmentation fault`);
  assert.equal(exited([FailureField.ExitCode, 0]), `${prefix}Runtime exited without providing a reason`);
});

test("out of memory has a type of its own", () => {
  assert.equal(textsOf([FailureField.Outcome, FailureOutcome.OutOfMemory]).error.errorType, "Runtime.OutOfMemory");
});

test("what the runtime reported goes to the client as it came", () => {
  const body = '{"errorMessage":"no","errorType":"Mine","trace":[]}';
  const texts = textsOf(
    [FailureField.Outcome, FailureOutcome.Reported],
    [FailureField.ErrorType, "Mine"],
    [FailureField.ErrorBody, body],
  );
  assert.equal(Buffer.from(texts.error.body).toString(), body);
  assert.equal(texts.fault, null);
});
