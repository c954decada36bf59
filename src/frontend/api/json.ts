import { isUtf8 } from "node:buffer";
import { Base64Error, Base64Reader } from "../../lib/base64.ts";
import type { Clock } from "../../lib/clock.ts";
import { JsonLimitError, JsonScanner, JsonSyntaxError } from "../../lib/json-scanner.ts";
import type { JsonScannerOptions } from "../../lib/json-scanner.ts";
import type { TurnOwner, Turns } from "../../lib/turn-meter.ts";
import { TurnQueue } from "../../lib/turn-queue.ts";
import type { Step } from "../../lib/turn-queue.ts";
import { ServiceError } from "../../wire/errors.ts";
import { CONTROL_JSON_BYTES_MAX, CONTROL_JSON_DEPTH_MAX, CONTROL_JSON_VALUES_MAX } from "../../wire/limits.ts";
import type { Operation, Structure } from "./model.ts";

/*
 * JSON of clients. The naive way, `JSON.parse` of the body, holds the loop for as long as the client likes: 58 MB of small
 * members took it 16 s, 60 MB of opening brackets 7 s. So an event is checked and never built: only its function needs
 * what it says. A body of the control API is built once it is known to be small: an archive in it is cut out first, as
 * bytes. Whatever is long is read in pieces, one in a turn of the loop for all clients together.
 */

/** A text up to this long is scanned at once: 0.3 ms and less. */
const AT_ONCE_BYTES = 16 * 1024;
/** So much of a longer one in a turn: about 1 ms of the densest JSON. */
const PIECE_BYTES = 64 * 1024;
/** Base64 is a string, whose bytes cost less, and there is more of it. */
const BASE64_PIECE_BYTES = 512 * 1024;
const INVOKE: TurnOwner = { kind: "request", name: "Invoke" };
const LIMITS = { depthMax: CONTROL_JSON_DEPTH_MAX, valuesMax: CONTROL_JSON_VALUES_MAX };

const noJson = (why: string): ServiceError =>
  new ServiceError("InvalidRequestContentException", 400, `Could not parse request body into json: ${why}`, {
    Type: "User",
  });

const serialization = (message: string): ServiceError => new ServiceError("SerializationException", 400, message);

const asServiceError = (error: unknown): unknown => {
  if (error instanceof JsonSyntaxError) return noJson(error.message);
  if (error instanceof JsonLimitError)
    return serialization(`The request body is no input of Lambda's: ${error.message}`);
  if (error instanceof Base64Error) return serialization(error.message);
  return error;
};

/**
 * The names that lead to the archive in an operation's body, e.g. Code, ZipFile; null for an operation without one. An
 * archive is the one member that may be long.
 */
export const archivePath = ({ members }: Structure): readonly string[] | null => {
  for (const { binding, shape } of members) {
    if (binding.at !== "body") continue;
    if (shape.kind === "blob") return [binding.name];
    const inner = shape.kind === "structure" ? shape.members.find((member) => member.shape.kind === "blob") : undefined;
    if (inner?.binding.at === "body") return [binding.name, inner.binding.name];
  }
  return null;
};

/** Puts the value where the names lead, unless a second spelling of a name on the way leads somewhere else. */
const replace = (object: unknown, [name = "", ...rest]: readonly string[], value: unknown): void => {
  if (typeof object !== "object" || object === null) return;
  const members = object as Record<string, unknown>;
  if (rest.length === 0) members[name] = value;
  else replace(members[name], rest, value);
};

/** Reads the JSON of all clients of a Frontend. */
export class JsonReader {
  readonly #long: TurnQueue;
  readonly #turns: Turns;

  constructor(clock: Pick<Clock, "soon">, turns: Turns) {
    this.#long = new TurnQueue(clock);
    this.#turns = turns;
  }

  /** Throws InvalidRequestContentException unless an event is JSON. It may be as deep and dense as its size allows. */
  async check(event: Uint8Array): Promise<void> {
    await this.#scan(event, {}, INVOKE);
    if (!isUtf8(event)) throw noJson("Invalid UTF-8 text");
  }

  /**
   * The members of an operation's body; an archive in it is a Buffer, decoded. Throws InvalidRequestContentException for
   * a body that is no JSON, SerializationException for one beyond the limits or of another type, and
   * RequestEntityTooLargeException for one that is too long without its archive.
   */
  async read(operation: Operation, body: Buffer): Promise<Readonly<Record<string, unknown>>> {
    if (body.byteLength === 0) return {};
    const follow = archivePath(operation.input);
    const owner: TurnOwner = { kind: "request", name: operation.name };
    const options = follow === null ? { limits: LIMITS } : { limits: LIMITS, follow };
    const scanner = await this.#scan(body, options, owner);
    const archive = scanner.followed;
    const rest = archive === null ? [body] : [body.subarray(0, archive.start), body.subarray(archive.end)];
    const bytes = rest.reduce((sum, part) => sum + part.byteLength, 0);
    if (bytes > CONTROL_JSON_BYTES_MAX) throw tooLong(operation, follow, bytes);
    const text = rest.length === 1 ? body : Buffer.concat(rest);
    if (!isUtf8(text)) throw noJson("Invalid UTF-8 text");
    const parsed: unknown = JSON.parse(text.toString("utf8"));
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
      throw serialization("Unexpected token found where a structure was expected");
    }
    const members = parsed as Record<string, unknown>;
    if (follow !== null && archive !== null) {
      replace(members, follow, await this.#decode(body.subarray(archive.start, archive.end), owner));
    }
    return members;
  }

  #piecewise(owner: TurnOwner, step: Step): Promise<void> {
    return this.#long.run(() => {
      this.#turns.begin(owner);
      return step();
    });
  }

  async #scan(bytes: Uint8Array, options: JsonScannerOptions, owner: TurnOwner): Promise<JsonScanner> {
    const scanner = new JsonScanner(bytes, options);
    try {
      if (bytes.byteLength <= AT_ONCE_BYTES) scanner.advance();
      else await this.#piecewise(owner, () => scanner.advance(PIECE_BYTES));
      return scanner;
    } catch (error) {
      throw asServiceError(error);
    }
  }

  async #decode(base64: Uint8Array, owner: TurnOwner): Promise<Buffer> {
    const reader = new Base64Reader(base64);
    try {
      await this.#piecewise(owner, () => reader.advance(BASE64_PIECE_BYTES));
      return reader.decoded;
    } catch (error) {
      throw asServiceError(error);
    }
  }
}

const tooLong = ({ name }: Operation, follow: readonly string[] | null, bytes: number): ServiceError =>
  new ServiceError(
    "RequestEntityTooLargeException",
    413,
    `Request must be smaller than ${CONTROL_JSON_BYTES_MAX} bytes for the ${name} operation` +
      `${follow === null ? "" : ` beside its ${follow.join(".")}`}, got ${bytes} bytes`,
  );
