import assert from "node:assert/strict";
import { test } from "node:test";
import { formatAmznTrace, parseAmznTrace, parseTraceparent } from "./trace.ts";

const TRACE = "5759e988bd862e3fe1be46a994272793";
const SPAN = "53995c3f42cd8ad8";

test("a traceparent is read, whatever its version, unless it is broken", () => {
  const expected = { traceId: TRACE, spanId: SPAN, sampled: true, state: null };
  assert.deepEqual(parseTraceparent(`00-${TRACE}-${SPAN}-01`, null), expected);
  assert.deepEqual(parseTraceparent(`00-${TRACE}-${SPAN}-02`, "a=b"), { ...expected, sampled: false, state: "a=b" });
  assert.deepEqual(parseTraceparent(`cc-${TRACE}-${SPAN}-03-more`, null), expected);
  for (const wrong of [
    "",
    `00-${TRACE}-${SPAN}`,
    `00-${TRACE}-${SPAN}-01-more`,
    `ff-${TRACE}-${SPAN}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${"0".repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${"0".repeat(16)}-01`,
    ` 00-${TRACE}-${SPAN}-01`,
  ]) {
    assert.equal(parseTraceparent(wrong, null), null, wrong);
  }
  assert.equal(parseTraceparent(`00-${TRACE}-${SPAN}-01`, "x".repeat(600))?.state, null);
});

test("an X-Amzn-Trace-Id is read in any order, and written", () => {
  const header = `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=${SPAN};Sampled=1`;
  assert.deepEqual(parseAmznTrace(header), { traceId: TRACE, spanId: SPAN, sampled: true });
  assert.equal(formatAmznTrace({ traceId: TRACE, spanId: SPAN, sampled: true }), header);
  assert.deepEqual(
    parseAmznTrace(`Self=1-67891234-12456789abcdef012345678;Sampled=0; Root=1-5759e988-bd862e3fe1be46a994272793`),
    { traceId: TRACE, spanId: null, sampled: false },
  );
  assert.deepEqual(parseAmznTrace("root=1-5759e988-bd862e3fe1be46a994272793;sampled=?"), {
    traceId: TRACE,
    spanId: null,
    sampled: null,
  });
  for (const wrong of ["", "Root=1-5759e988", `Parent=${SPAN}`, "Root=2-5759e988-bd862e3fe1be46a994272793", "x"]) {
    assert.equal(parseAmznTrace(wrong), null, wrong);
  }
});
