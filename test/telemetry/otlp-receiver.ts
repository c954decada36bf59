import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";

/*
 * A receiver of traces over OTLP/HTTP with protobuf ("OpenTelemetry Protocol Specification" 1.x), which reads what a
 * test looks at: numbers of fields are those of opentelemetry/proto/trace/v1/trace.proto and its imports.
 */

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** "" for none. */
  readonly parentId: string;
  readonly traceState: string;
  readonly name: string;
  /** 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  readonly kind: number;
  /** Unix time in ns. */
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly events: readonly { readonly name: string; readonly timeNs: bigint }[];
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  /** 0 unset, 1 ok, 2 error. */
  readonly status: number;
  readonly resource: Readonly<Record<string, unknown>>;
}

type Value = bigint | Buffer;
type Fields = ReadonlyMap<number, readonly Value[]>;

/** The fields of one message ("Encoding" in the documentation of Protocol Buffers). */
const fieldsOf = (message: Buffer): Fields => {
  const fields = new Map<number, Value[]>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message.readUInt8(at);
      at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
  };
  const take = (length: number): Buffer => {
    if (at + length > message.length) throw new Error("a protobuf field runs over its message");
    at += length;
    return message.subarray(at - length, at);
  };
  const read = (wireType: number): Value => {
    switch (wireType) {
      case 0:
        return varint();
      case 1:
        return take(8).readBigUInt64LE();
      case 2:
        return take(Number(varint()));
      case 5:
        return BigInt(take(4).readUInt32LE());
      default:
        throw new Error(`protobuf wire type ${wireType}`);
    }
  };
  while (at < message.length) {
    const tag = Number(varint());
    fields.set(tag >> 3, [...(fields.get(tag >> 3) ?? []), read(tag & 7)]);
  }
  return fields;
};

const messages = (fields: Fields, number: number): Fields[] =>
  (fields.get(number) ?? []).map((value) => fieldsOf(value as Buffer));
const bytes = (fields: Fields, number: number): Buffer =>
  (fields.get(number)?.[0] as Buffer | undefined) ?? Buffer.alloc(0);
const text = (fields: Fields, number: number): string => bytes(fields, number).toString("utf8");
const hex = (fields: Fields, number: number): string => bytes(fields, number).toString("hex");
const number = (fields: Fields, field: number): bigint => (fields.get(field)?.[0] as bigint | undefined) ?? 0n;

/** AnyValue: string, bool, int and double are what Hearth sends. */
const anyValue = (fields: Fields): unknown => {
  if (fields.has(1)) return text(fields, 1);
  if (fields.has(2)) return number(fields, 2) === 1n;
  if (fields.has(3)) return Number(BigInt.asIntN(64, number(fields, 3)));
  const double = Buffer.alloc(8);
  double.writeBigUInt64LE(number(fields, 4));
  return double.readDoubleLE();
};

const attributesOf = (fields: Fields, field: number): Record<string, unknown> =>
  Object.fromEntries(
    messages(fields, field).map((pair) => [text(pair, 1), messages(pair, 2).map((value) => anyValue(value))[0]]),
  );

const spanOf = (span: Fields, resource: Readonly<Record<string, unknown>>): ReceivedSpan => ({
  traceId: hex(span, 1),
  spanId: hex(span, 2),
  traceState: text(span, 3),
  parentId: hex(span, 4),
  name: text(span, 5),
  kind: Number(number(span, 6)),
  startNs: number(span, 7),
  endNs: number(span, 8),
  attributes: attributesOf(span, 9),
  events: messages(span, 11).map((event) => ({ timeNs: number(event, 1), name: text(event, 2) })),
  links: messages(span, 13).map((link) => ({ traceId: hex(link, 1), spanId: hex(link, 2) })),
  status: messages(span, 15).map((status) => Number(number(status, 3)))[0] ?? 0,
  resource,
});

/** ExportTraceServiceRequest → ResourceSpans → ScopeSpans → Span. */
const spansOf = (request: Buffer): ReceivedSpan[] =>
  messages(fieldsOf(request), 1).flatMap((resourceSpans) => {
    const resource = attributesOf(messages(resourceSpans, 1)[0] ?? new Map(), 1);
    return messages(resourceSpans, 2).flatMap((scope) => messages(scope, 2).map((span) => spanOf(span, resource)));
  });

export class OtlpReceiver implements AsyncDisposable {
  readonly spans: ReceivedSpan[] = [];
  readonly requests: { readonly path: string; readonly headers: Readonly<Record<string, unknown>> }[] = [];
  /** What is answered from now on. */
  status = 200;
  readonly #server = createServer((request, response) => void this.#take(request, response));

  static async start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver();
    receiver.#server.listen(0, "127.0.0.1");
    await once(receiver.#server, "listening");
    return receiver;
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await buffer(request);
    this.requests.push({ path: request.url ?? "", headers: request.headers });
    const plain = request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body;
    if (this.status === 200) this.spans.push(...spansOf(plain));
    response.writeHead(this.status, { "content-type": "application/x-protobuf" }).end();
  }

  get endpoint(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the receiver has no port");
    return `http://127.0.0.1:${address.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
