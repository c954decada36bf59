import { decodeBase64 } from "../../lib/base64.ts";
import { ServiceError } from "../../wire/errors.ts";
import { CONSTRAINTS, violations } from "./constraints.ts";
import type { Member, Operation, Shape, Structure } from "./model.ts";

/** A request as far as its operation's input is read from it. */
export interface InputSource {
  readonly labels: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly header: (name: string) => string | undefined;
  readonly body: Buffer;
  /** What the body says when it is JSON: archives in it are Buffers. */
  readonly members: Readonly<Record<string, unknown>>;
}

/** Longest part of a refused value that its error repeats. */
const VALUE_CHARS_SHOWN = 256;

const serialization = (message: string, path: string): ServiceError =>
  new ServiceError("SerializationException", 400, path === "" ? message : `${message} (at '${path}')`);

/** Members are named in errors as AWS does: the first letter small. */
const errorName = (name: string): string => name.charAt(0).toLowerCase() + name.slice(1);

const nameOfType = (value: unknown): string => {
  if (typeof value === "string") return "STRING_VALUE";
  if (typeof value === "number") return "NUMBER_VALUE";
  if (typeof value === "boolean") return value ? "TRUE_VALUE" : "FALSE_VALUE";
  return Array.isArray(value) ? "START_ARRAY" : "START_OBJECT";
};

/** One reading of one input: types are refused at once, everything else is gathered so that all of it is told. */
class Decoder {
  readonly problems: string[] = [];

  structure(value: unknown, shape: Structure, path: string): Record<string, unknown> {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw serialization("Unexpected token found where a structure was expected", path);
    }
    const source = value as Readonly<Record<string, unknown>>;
    const result: Record<string, unknown> = {};
    for (const member of shape.members) {
      const name = member.binding.at === "body" ? member.binding.name : member.name;
      const found = Object.hasOwn(source, name) ? source[name] : undefined;
      this.member(result, shape, member, found, path);
    }
    return result;
  }

  /** Puts a member that is there and good into `result`. Unknown members are ignored, as AWS does. */
  member(result: Record<string, unknown>, owner: Structure, member: Member, found: unknown, path: string): void {
    const memberPath = path === "" ? errorName(member.name) : `${path}.${errorName(member.name)}`;
    if (found === undefined || found === null) {
      if (member.required) this.refuse("null", memberPath, "Member must not be null");
      return;
    }
    const value = this.value(found, member.shape, memberPath);
    const constraint = CONSTRAINTS.get(owner.name)?.[member.name];
    if (constraint !== undefined) {
      const shown = typeof value === "string" ? value.slice(0, VALUE_CHARS_SHOWN) : JSON.stringify(value);
      for (const problem of violations(value, constraint)) this.refuse(`'${shown}'`, memberPath, problem);
    }
    result[member.name] = value;
  }

  refuse(value: string, path: string, problem: string): void {
    this.problems.push(`Value ${value} at '${path}' failed to satisfy constraint: ${problem}`);
  }

  value(found: unknown, shape: Shape, path: string): unknown {
    switch (shape.kind) {
      case "structure":
        return this.structure(found, shape, path);
      case "list":
        if (!Array.isArray(found)) throw serialization("Expected list or null", path);
        return found.map((item: unknown, index) => this.value(item, shape.item, `${path}.${index + 1}.member`));
      case "map":
        return this.map(found, shape.value, path);
      case "blob":
        return this.blob(found, path);
      case "timestamp":
      case "number":
        return this.number(found, path);
      case "boolean":
        if (typeof found !== "boolean")
          throw serialization(`${nameOfType(found)} can not be converted to a Boolean`, path);
        return found;
      case "string":
        if (typeof found !== "string")
          throw serialization(`${nameOfType(found)} can not be converted to a String`, path);
        return found;
      case "document":
        return found;
    }
  }

  map(found: unknown, value: Shape, path: string): Record<string, unknown> {
    if (typeof found !== "object" || found === null || Array.isArray(found)) {
      throw serialization("Expected map or null", path);
    }
    const entries = Object.entries(found).map(([key, item]) => [key, this.value(item, value, `${path}.${key}.member`)]);
    return Object.fromEntries(entries) as Record<string, unknown>;
  }

  /** Every number of the operations built so far is a whole one. */
  number(found: unknown, path: string): number {
    if (typeof found !== "number") throw serialization(`${nameOfType(found)} can not be converted to an Integer`, path);
    if (!Number.isSafeInteger(found)) throw serialization(`${found} can not be converted to an Integer`, path);
    return found;
  }

  blob(found: unknown, path: string): Buffer {
    if (found instanceof Uint8Array) return Buffer.from(found.buffer, found.byteOffset, found.byteLength);
    if (typeof found !== "string") throw serialization(`${nameOfType(found)} can not be converted to a Blob`, path);
    try {
      return decodeBase64(found);
    } catch (error) {
      throw serialization(error instanceof Error ? error.message : String(error), path);
    }
  }
}

/** A text of the query, the path or a header, as the type its member has. */
const fromText = (text: string, shape: Shape): unknown => {
  if (shape.kind === "number" && /^-?\d{1,15}$/.test(text)) return Number(text);
  if (shape.kind === "boolean" && (text === "true" || text === "false")) return text === "true";
  return text;
};

const fromQuery = (query: URLSearchParams, name: string, shape: Shape): unknown => {
  if (shape.kind === "list") return query.has(name) ? query.getAll(name) : undefined;
  const text = query.get(name);
  return text === null ? undefined : fromText(text, shape);
};

const unbodied = (member: Member, source: InputSource): unknown => {
  const { binding, shape } = member;
  switch (binding.at) {
    case "label":
      return source.labels[binding.name];
    case "query":
      return fromQuery(source.query, binding.name, shape);
    case "header": {
      const text = source.header(binding.name);
      return text === undefined ? undefined : fromText(text, shape);
    }
    case "payload":
      return source.body;
    case "body":
    case "status":
      return undefined;
  }
};

/**
 * An operation's input, by its members' names. Throws SerializationException for wrong types, and ValidationException
 * naming everything else that is wrong.
 */
export const decodeInput = (operation: Operation, source: InputSource): Record<string, unknown> => {
  const { input } = operation;
  const { members } = source;
  const decoder = new Decoder();
  const result: Record<string, unknown> = {};
  for (const member of input.members) {
    const { binding } = member;
    const inner = binding.at === "body" && Object.hasOwn(members, binding.name) ? members[binding.name] : undefined;
    decoder.member(result, input, member, binding.at === "body" ? inner : unbodied(member, source), "");
  }
  const count = decoder.problems.length;
  if (count > 0) {
    const heading = `${count} validation error${count === 1 ? "" : "s"} detected: `;
    throw new ServiceError("ValidationException", 400, heading + decoder.problems.join("; "));
  }
  return result;
};
