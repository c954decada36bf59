import { constants, endianness } from "node:os";

import { FILTER_INSTRUCTIONS_MAX } from "../limits.ts";
import { systemCallsOf, type SystemCallTable } from "./system-calls.ts";

/**
 * What an argument must be. Only its lower 32 bits are looked at: the arguments checked here are `int` or `unsigned
 * int` to the kernel, which takes no more of them (and for ptrace's `long` request no request has a bit beyond).
 */
export type Check =
  | { readonly argument: number; readonly oneOf: readonly number[] }
  | { readonly argument: number; readonly noneOf: readonly number[] }
  | { readonly argument: number; readonly withoutBits: number };

/** A system call that may be made. A name that the processor does not have is passed over. */
export interface AllowedCall {
  readonly name: string;
  /** All of them must hold. */
  readonly checks: readonly Check[];
}

export interface FilterRules {
  /** Calls with checks cost a look at their arguments; the first ones least. The others cost next to nothing. */
  readonly allowed: readonly AllowedCall[];
  /** Refused with ENOSYS instead of reported: a library tries them and knows what to do without. */
  readonly absent: readonly string[];
}

// struct sock_filter (linux/filter.h): what is loaded from struct seccomp_data (linux/seccomp.h), and where it is.
const INSTRUCTION_BYTES = 8;
const LOAD_WORD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER_OR_EQUAL = 0x35;
const JUMP_BITS_SET = 0x45;
const RETURN = 0x06;
const NUMBER_OFFSET = 0;
const ARCHITECTURE_OFFSET = 4;
const ARGUMENTS_OFFSET = 16;

const ALLOW = 0x7fff_0000;
/** SECCOMP_RET_USER_NOTIF: the call waits for the monitor, which never lets it go on. */
const REPORT = 0x7fc0_0000;
const REFUSE = 0x0005_0000;
/** Calls of the x32 ABI have this bit, and otherwise look like x86-64's. */
const X32_BIT = 0x4000_0000;

interface Instruction {
  readonly code: number;
  readonly value: number;
  readonly ifTrue?: number;
  readonly ifFalse?: number;
}

const returning = (action: number): Instruction => ({ code: RETURN, value: action });
const load = (offset: number): Instruction => ({ code: LOAD_WORD, value: offset });

/** Goes on behind these instructions when the check holds, else to a REPORT. Needs no other label than "next". */
const checkInstructions = (check: Check): Instruction[] => {
  const loaded = load(ARGUMENTS_OFFSET + 8 * check.argument);
  const report = returning(REPORT);
  if ("withoutBits" in check) return [loaded, { code: JUMP_BITS_SET, value: check.withoutBits, ifFalse: 1 }, report];
  if ("oneOf" in check) {
    const last = check.oneOf.length - 1;
    // Each value jumps over the values after it and the report.
    return [loaded, ...check.oneOf.map((value, i) => ({ code: JUMP_EQUAL, value, ifTrue: last - i + 1 })), report];
  }
  return [loaded, ...check.noneOf.flatMap((value) => [{ code: JUMP_EQUAL, value, ifFalse: 1 }, report])];
};

const callInstructions = (number: number, action: number, checks: readonly Check[]): Instruction[] => {
  const body = [...checks.flatMap((check) => checkInstructions(check)), returning(action)];
  return [{ code: JUMP_EQUAL, value: number, ifFalse: body.length }, ...body];
};

const encode = (instructions: readonly Instruction[]): Uint8Array => {
  if (instructions.length > FILTER_INSTRUCTIONS_MAX)
    throw new Error(`A filter of ${String(instructions.length)}, at most ${String(FILTER_INSTRUCTIONS_MAX)} may be`);
  const bytes = new Uint8Array(instructions.length * INSTRUCTION_BYTES);
  const view = new DataView(bytes.buffer);
  const little = endianness() === "LE";
  for (const [i, { code, value, ifTrue = 0, ifFalse = 0 }] of instructions.entries()) {
    if (ifTrue > 255 || ifFalse > 255)
      throw new Error("A jump of a filter is too far: too many values to compare with");
    const at = i * INSTRUCTION_BYTES;
    view.setUint16(at, code, little);
    view.setUint8(at + 2, ifTrue);
    view.setUint8(at + 3, ifFalse);
    view.setUint32(at + 4, value, little);
  }
  return bytes;
};

/**
 * Assembles a filter: an array of struct sock_filter. Whatever is not allowed is reported to the holder of the filter's
 * listener, so that its name is known; so is every call of another ABI (32-bit, x32).
 */
export const assembleFilter = (rules: FilterRules, table: SystemCallTable = systemCallsOf()): Uint8Array => {
  const numbered = rules.allowed.flatMap(({ name, checks }) => {
    const number = table.numbers.get(name);
    return number === undefined ? [] : [{ number, checks }];
  });
  const absent = rules.absent.flatMap((name) => table.numbers.get(name) ?? []);
  const { ENOSYS } = constants.errno;
  return encode([
    load(ARCHITECTURE_OFFSET),
    { code: JUMP_EQUAL, value: table.auditArchitecture, ifTrue: 1 },
    returning(REPORT),
    load(NUMBER_OFFSET),
    { code: JUMP_GREATER_OR_EQUAL, value: X32_BIT, ifFalse: 1 },
    returning(REPORT),
    // Those with checks first: the kernel remembers the outcome for all others.
    ...numbered
      .filter(({ checks }) => checks.length > 0)
      .flatMap((call) => callInstructions(call.number, ALLOW, call.checks)),
    ...numbered.filter(({ checks }) => checks.length === 0).flatMap((call) => callInstructions(call.number, ALLOW, [])),
    ...absent.flatMap((number) => callInstructions(number, REFUSE | ENOSYS, [])),
    returning(REPORT),
  ]);
};

/** A call that a filter reported: struct seccomp_notif of linux/seccomp.h. */
export interface Violation {
  /** Host process (thread) that made it. */
  readonly pid: number;
  /** Its name, such as `socket`, or what can be said of it. */
  readonly call: string;
  readonly args: readonly bigint[];
}

export const NOTIFICATION_BYTES = 80;

/** Name of a system call of this processor's own ABI, or what can be said of it: `number 4000`. */
export const callName = (number: number, table: SystemCallTable = systemCallsOf()): string =>
  table.names.get(number) ?? `number ${String(number)}`;

/** What a notification says. */
export const decodeViolation = (bytes: Uint8Array, table: SystemCallTable = systemCallsOf()): Violation => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, NOTIFICATION_BYTES);
  const little = endianness() === "LE";
  const number = view.getInt32(16, little);
  const sameAbi = view.getUint32(20, little) === table.auditArchitecture && number < X32_BIT;
  const call = sameAbi ? callName(number, table) : `number ${String(number & ~X32_BIT)} of another ABI`;
  const args = Array.from({ length: 6 }, (_, i) => view.getBigUint64(32 + 8 * i, little));
  return { pid: view.getUint32(8, little), call, args };
};

/** Such as `socket(0x2, 0x1, 0x0)`: arguments as they are, a number that no call has by itself. */
export const describeViolation = ({ call, args }: Violation): string =>
  call.startsWith("number ")
    ? call
    : `${call}(${args
        .slice(0, 4)
        .map((argument) => `0x${argument.toString(16)}`)
        .join(", ")})`;
