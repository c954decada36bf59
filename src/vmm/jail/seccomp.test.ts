import assert from "node:assert/strict";
import { test } from "node:test";

import { UML_RULES } from "../hypervisors/uml/system-calls.ts";
import { assembleFilter, decodeViolation, describeViolation, type FilterRules } from "./seccomp.ts";
import { systemCallsOf } from "./system-calls.ts";

const x64 = systemCallsOf("x64");
const arm64 = systemCallsOf("arm64");
const ALLOW = 0x7fff_0000;
const REPORT = 0x7fc0_0000;
const ENOSYS = 0x0005_0026;

interface Call {
  readonly architecture?: number;
  readonly number: number;
  readonly args?: readonly bigint[];
}

/** Runs a filter as the kernel would (linux/filter.h): what it returns for a call. */
const run = (filter: Uint8Array, { architecture = x64.auditArchitecture, number, args = [] }: Call): number => {
  const data = new DataView(new ArrayBuffer(64));
  data.setInt32(0, number, true);
  data.setUint32(4, architecture, true);
  for (const [i, argument] of args.entries()) data.setBigUint64(16 + 8 * i, argument, true);
  const program = new DataView(filter.buffer);
  let loaded = 0;
  for (let at = 0; ; at += 8) {
    const [code, value] = [program.getUint16(at, true), program.getUint32(at + 4, true)];
    if (code === 0x06) return value;
    if (code === 0x20) loaded = data.getUint32(value, true);
    else {
      const taken = { 0x15: loaded === value, 0x35: loaded >= value, 0x45: (loaded & value) !== 0 }[code];
      assert.notEqual(taken, undefined, `instruction ${String(code)}`);
      at += 8 * program.getUint8(at + (taken === true ? 2 : 3));
    }
  }
};

const number = (name: string): number => x64.numbers.get(name) ?? assert.fail(name);
const RULES: FilterRules = {
  allowed: [
    { name: "read", checks: [] },
    { name: "no_such_call", checks: [] },
    {
      name: "socket",
      checks: [
        { argument: 0, oneOf: [1] },
        { argument: 1, oneOf: [1, 2] },
      ],
    },
    { name: "clone", checks: [{ argument: 0, withoutBits: 0x7e02_0000 }] },
    { name: "kill", checks: [{ argument: 1, noneOf: [6, 7] }] },
  ],
  absent: ["clone3"],
};

test("the tables are those of the processors", () => {
  for (const [name, ours, theirs] of [
    ["read", 0, 63],
    ["ptrace", 101, 117],
    ["execveat", 322, 281],
    ["clone3", 435, 435],
    ["mseal", 462, 462],
  ] as const) {
    assert.equal(x64.numbers.get(name), ours);
    assert.equal(arm64.numbers.get(name), theirs);
    assert.equal(arm64.names.get(theirs), name);
  }
  assert.throws(() => systemCallsOf("mips"), /no table of system calls for mips/);
});

test("a filter allows what it is told to, by number and arguments", () => {
  const filter = assembleFilter(RULES, x64);
  const socket = (...args: bigint[]): number => run(filter, { number: number("socket"), args });
  assert.equal(run(filter, { number: number("read") }), ALLOW);
  assert.equal(run(filter, { number: number("write") }), REPORT);
  assert.equal(run(filter, { number: number("clone3") }), ENOSYS);
  assert.equal(socket(1n, 1n), ALLOW);
  assert.equal(socket(1n, 2n), ALLOW);
  assert.equal(socket(1n, 3n), REPORT);
  assert.equal(socket(2n, 1n), REPORT);
  for (const [flags, action] of [
    [0x11n, ALLOW],
    [0x1000_0011n, REPORT],
    [0x2_0000n, REPORT],
  ] as const)
    assert.equal(run(filter, { number: number("clone"), args: [flags] }), action);
  for (const [signal, action] of [
    [9n, ALLOW],
    [6n, REPORT],
    [7n, REPORT],
  ] as const)
    assert.equal(run(filter, { number: number("kill"), args: [1n, signal] }), action);
});

test("calls of another ABI are not taken for ours", () => {
  const filter = assembleFilter(RULES, x64);
  assert.equal(run(filter, { number: number("read") + 0x4000_0000 }), REPORT);
  assert.equal(run(filter, { number: number("read"), architecture: 0x4000_0003 }), REPORT);
  assert.equal(run(filter, { number: -1 }), REPORT);
  const onArm = assembleFilter(RULES, arm64);
  assert.equal(run(onArm, { number: 63, architecture: arm64.auditArchitecture }), ALLOW);
  assert.equal(run(onArm, { number: 0 }), REPORT);
});

test("every name of UML's list is one of some processor", () => {
  for (const { name } of UML_RULES.allowed) assert.ok(x64.numbers.has(name) || arm64.numbers.has(name), name);
  assert.equal(new Set(UML_RULES.allowed.map(({ name }) => name)).size, UML_RULES.allowed.length);
});

test("a report says which call it was", () => {
  const report = (architecture: number, number: number): string => {
    const bytes = new Uint8Array(80);
    const view = new DataView(bytes.buffer);
    view.setInt32(16, number, true);
    view.setUint32(20, architecture, true);
    view.setBigUint64(32, 2n, true);
    view.setBigUint64(40, 0x8_0001n, true);
    return describeViolation(decodeViolation(bytes, x64));
  };
  assert.equal(report(x64.auditArchitecture, 41), "socket(0x2, 0x80001, 0x0, 0x0)");
  assert.equal(report(x64.auditArchitecture, 4000), "number 4000");
  assert.equal(report(x64.auditArchitecture, 0x4000_0029), "number 41 of another ABI");
  assert.equal(report(0x4000_0003, 5), "number 5 of another ABI");
});
