import * as lambda from "@aws-sdk/client-lambda";
import { NormalizedSchema } from "@smithy/core/schema";

/*
 * The contract of the Lambda API as the AWS SDK's own schemas give it: nothing of it is typed here again. A schema
 * is an array whose first element says what it is; NormalizedSchema of @smithy/core reads all but the operations,
 * whose form is [9, namespace, name, traits, input, output].
 */

const OPERATION = 9;
const ERROR = -3;
const ERROR_NAME_AT = 2;
/** Of a structure: how many of its members, from the first, are required. */
const REQUIRED_COUNT_AT = 6;

export interface Structure {
  readonly kind: "structure";
  readonly name: string;
  readonly members: readonly Member[];
}

export type Shape =
  | { readonly kind: "string" | "number" | "boolean" | "blob" | "timestamp" | "document" }
  | { readonly kind: "list"; readonly item: Shape }
  | { readonly kind: "map"; readonly value: Shape }
  | Structure;

/** Where in a request or answer a member travels; `name` is its name there. */
export type Binding =
  | { readonly at: "body" | "label" | "query" | "header"; readonly name: string }
  | { readonly at: "payload" | "status" };

export interface Member {
  readonly name: string;
  readonly shape: Shape;
  readonly required: boolean;
  readonly binding: Binding;
}

export interface Operation {
  readonly name: string;
  readonly method: string;
  /** E.g. /2015-03-31/functions/{FunctionName}, without what follows a question mark. */
  readonly path: string;
  /** Query parameters that tell this operation from another of the same path. */
  readonly fixedQuery: ReadonlyMap<string, string>;
  /** Of a good answer, unless its status member says another. */
  readonly status: number;
  readonly input: Structure;
  readonly output: Structure;
}

export interface ErrorShape {
  readonly name: string;
  readonly status: number;
  /** "Message" or "message": each shape has its own. */
  readonly messageMember: string;
  readonly members: readonly Member[];
}

const NOTHING: Structure = { kind: "structure", name: "Unit", members: [] };
const structures = new Map<unknown, Structure>();

const bindingOf = (name: string, traits: Readonly<Record<string, unknown>>): Binding => {
  if (traits["httpLabel"] !== undefined) return { at: "label", name };
  if (typeof traits["httpQuery"] === "string") return { at: "query", name: traits["httpQuery"] };
  if (typeof traits["httpHeader"] === "string") return { at: "header", name: traits["httpHeader"].toLowerCase() };
  if (traits["httpPayload"] !== undefined) return { at: "payload" };
  if (traits["httpResponseCode"] !== undefined) return { at: "status" };
  return { at: "body", name: typeof traits["jsonName"] === "string" ? traits["jsonName"] : name };
};

const structureOf = (schema: NormalizedSchema): Structure => {
  if (schema.isUnitSchema()) return NOTHING;
  const raw: unknown = schema.getSchema();
  const known = structures.get(raw);
  if (known !== undefined) return known;
  const members: Member[] = [];
  const structure: Structure = { kind: "structure", name: schema.getName() ?? "", members };
  // Before its members, which may refer to it.
  structures.set(raw, structure);
  const required = Array.isArray(raw) ? Number(raw[REQUIRED_COUNT_AT] ?? 0) : 0;
  for (const [name, member] of schema.structIterator()) {
    members.push({
      name,
      shape: shapeOf(member),
      required: members.length < required,
      binding: bindingOf(name, member.getMergedTraits()),
    });
  }
  return structure;
};

const shapeOf = (schema: NormalizedSchema): Shape => {
  if (schema.isStructSchema()) return structureOf(schema);
  if (schema.isListSchema()) return { kind: "list", item: shapeOf(schema.getValueSchema()) };
  if (schema.isMapSchema()) return { kind: "map", value: shapeOf(schema.getValueSchema()) };
  if (schema.isBlobSchema()) return { kind: "blob" };
  if (schema.isTimestampSchema()) return { kind: "timestamp" };
  if (schema.isBooleanSchema()) return { kind: "boolean" };
  if (schema.isNumericSchema()) return { kind: "number" };
  if (schema.isStringSchema()) return { kind: "string" };
  return { kind: "document" };
};

type SchemaRef = Parameters<typeof NormalizedSchema.of>[0];

const operationOf = (schema: readonly unknown[]): Operation => {
  const [, , name, traits, input, output] = schema;
  const [method, uri, status] = (traits as { readonly http: readonly [string, string, number] }).http;
  const [path = "", query = ""] = uri.split("?");
  return {
    name: String(name),
    method,
    path,
    fixedQuery: new Map(new URLSearchParams(query)),
    status,
    input: structureOf(NormalizedSchema.of(input as SchemaRef)),
    output: structureOf(NormalizedSchema.of(output as SchemaRef)),
  };
};

const errorOf = (schema: readonly unknown[]): ErrorShape => {
  const { members } = structureOf(NormalizedSchema.of(schema as unknown as SchemaRef));
  const traits = schema[3] as { readonly httpError?: number } | 0;
  return {
    name: String(schema[ERROR_NAME_AT]),
    status: (traits === 0 ? undefined : traits.httpError) ?? 500,
    messageMember: members.find((member) => member.name.toLowerCase() === "message")?.name ?? "message",
    members,
  };
};

const schemasOf = (kind: number): readonly (readonly unknown[])[] =>
  Object.values(lambda).filter(
    (value: unknown) => Array.isArray(value) && value[0] === kind,
  ) as unknown as readonly (readonly unknown[])[];

/** Every operation of the Lambda API, by name. */
export const OPERATIONS: ReadonlyMap<string, Operation> = new Map(
  schemasOf(OPERATION).map((schema) => {
    const operation = operationOf(schema);
    return [operation.name, operation];
  }),
);

/** Every error the Lambda API models, by name. */
export const ERRORS: ReadonlyMap<string, ErrorShape> = new Map(
  schemasOf(ERROR).map((schema) => {
    const error = errorOf(schema);
    return [error.name, error];
  }),
);
