/**
 * Client of the Runtime API: HTTP/1.1 over one connection that stays open, with just the parts of HTTP that this takes.
 */
import { PlatformError } from "./errors.mjs";

const API_VERSION = "/2018-06-01";
const HEADERS_END = Buffer.from("\r\n\r\n");
const LINE_END = Buffer.from("\r\n");
const EMPTY = Buffer.alloc(0);
const NEXT = `GET ${API_VERSION}/runtime/invocation/next HTTP/1.1\r\n`;

/** Collects one response after the other. `feed` and `rest` give the next one when it is whole. */
class ResponseReader {
  #pending = EMPTY;
  #head;
  #body;
  #filled = 0;
  #chunks;

  feed(chunk) {
    if (this.#body !== undefined) return this.#fill(chunk);
    if (this.#pending.length === 0) this.#pending = chunk;
    else if (chunk.length > 0) this.#pending = Buffer.concat([this.#pending, chunk]);
    if (this.#head === undefined) {
      const end = this.#pending.indexOf(HEADERS_END);
      if (end < 0) return undefined;
      this.#head = parseHead(this.#pending.toString("utf8", 0, end));
      this.#pending = this.#pending.subarray(end + HEADERS_END.length);
      if (this.#head.headers["transfer-encoding"]?.toLowerCase() === "chunked") this.#chunks = [];
      else this.#body = Buffer.allocUnsafe(Number(this.#head.headers["content-length"] ?? 0));
    }
    if (this.#chunks !== undefined) return this.#readChunks();
    const first = this.#pending;
    this.#pending = EMPTY;
    return this.#fill(first);
  }

  /** The next of several that came together. */
  rest() {
    return this.#pending.length > 0 ? this.feed(EMPTY) : undefined;
  }

  #fill(chunk) {
    const missing = this.#body.length - this.#filled;
    const rest = chunk.subarray(missing);
    // A body that came in one piece needs no copy.
    if (this.#filled === 0 && chunk.length >= missing) return this.#finish(chunk.subarray(0, missing), rest);
    chunk.copy(this.#body, this.#filled);
    this.#filled += chunk.length;
    return chunk.length >= missing ? this.#finish(this.#body, rest) : undefined;
  }

  #readChunks() {
    for (;;) {
      const lineEnd = this.#pending.indexOf(LINE_END);
      if (lineEnd < 0) return undefined;
      const bytes = Number.parseInt(this.#pending.toString("latin1", 0, lineEnd), 16);
      const start = lineEnd + LINE_END.length;
      const end = start + bytes + LINE_END.length;
      if (this.#pending.length < end) return undefined;
      if (bytes === 0) return this.#finish(Buffer.concat(this.#chunks), this.#pending.subarray(end));
      this.#chunks.push(this.#pending.subarray(start, start + bytes));
      this.#pending = this.#pending.subarray(end);
    }
  }

  #finish(body, rest) {
    const response = { ...this.#head, body };
    this.#head = undefined;
    this.#body = undefined;
    this.#chunks = undefined;
    this.#filled = 0;
    this.#pending = rest;
    return response;
  }
}

function parseHead(text) {
  const lines = text.split("\r\n");
  const headers = {};
  for (let index = 1; index < lines.length; index++) {
    const colon = lines[index].indexOf(":");
    headers[lines[index].slice(0, colon).toLowerCase()] = lines[index].slice(colon + 1).trim();
  }
  return { status: Number(lines[0].slice(9, 12)), headers };
}

export class RuntimeApi {
  #host;
  #port;
  #authority;
  #socket;
  #reader = new ResponseReader();
  /** Who waits for responses, in the order of their requests. */
  #waiting = [];
  /** The next event, when it was asked for already. */
  #ahead;
  /** Whether an event was asked for ever. */
  #serves = false;
  #isAbandoned = false;

  constructor(authority) {
    const colon = authority.lastIndexOf(":");
    this.#host = authority.slice(0, colon);
    this.#port = Number(authority.slice(colon + 1));
    this.#authority = authority;
  }

  /** Waits for the next event. Resolves to its headers (names in lower case) and its body as text. */
  async next() {
    this.#serves = true;
    const asked = this.#ahead ?? this.#request(NEXT, {}, undefined);
    this.#ahead = undefined;
    const response = await asked;
    if (response.status !== 200) throw new PlatformError(`Failed to get next invocation: HTTP ${response.status}`);
    return { headers: response.headers, body: response.body.toString("utf8") };
  }

  /**
   * Sends an answer, and asks for the next event in the same system call: `next` gives it. Resolves when the API has
   * answered, whatever it says.
   */
  async answer(path, text) {
    // A rehearsal is no invocation that another one could follow.
    if (!this.#serves || this.#isAbandoned) return await this.post(path, text, {});
    const socket = this.#connect();
    const body = Buffer.from(text);
    const headers = { "Content-Type": "application/json", "Content-Length": body.length };
    const taken = this.#expect();
    this.#ahead = this.#expect();
    // Whoever asks for it hears of a failure.
    this.#ahead.catch(() => {});
    socket.cork();
    socket.write(this.#formatHead(`POST ${API_VERSION}${path} HTTP/1.1\r\n`, headers));
    socket.write(body);
    socket.write(this.#formatHead(NEXT, {}));
    socket.uncork();
    return await taken;
  }

  /** A GET beside the versioned API. Resolves to the body as text. */
  async ask(path) {
    const response = await this.#request(`GET ${path} HTTP/1.1\r\n`, {}, undefined);
    if (response.status !== 200) throw new PlatformError(`${path}: HTTP ${response.status}`);
    return response.body.toString("utf8");
  }

  /** Sends JSON text. Resolves when the API has answered, whatever it says: it judges, the runtime goes on. */
  async post(path, text, headers) {
    const body = Buffer.from(text);
    const withLength = { "Content-Type": "application/json", "Content-Length": body.length, ...headers };
    return await this.#request(`POST ${API_VERSION}${path} HTTP/1.1\r\n`, withLength, body);
  }

  /** Begins a request whose body is written piece by piece. */
  openStream(path, headers) {
    const socket = this.#connect();
    const response = this.#expect();
    socket.write(this.#formatHead(`POST ${API_VERSION}${path} HTTP/1.1\r\n`, headers));
    return { socket, response };
  }

  /** Ends the connection: a request on it was answered before its end. The next request gets a new one. */
  drop() {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#reader = new ResponseReader();
    socket?.destroy();
  }

  /** Gives the connection up. Whoever waits for an answer, or sends something later, waits for ever. */
  abandon() {
    this.#waiting = [];
    this.#ahead = undefined;
    this.#isAbandoned = true;
    this.drop();
  }

  #request(line, headers, body) {
    if (this.#isAbandoned) return new Promise(() => {});
    const socket = this.#connect();
    const response = this.#expect();
    const head = this.#formatHead(line, headers);
    if (body === undefined) socket.write(head);
    else {
      // Together they leave in one system call.
      socket.cork();
      socket.write(head);
      socket.write(body);
      socket.uncork();
    }
    return response;
  }

  #formatHead(line, headers) {
    let head = `${line}Host: ${this.#authority}\r\n`;
    for (const name in headers) head += `${name}: ${String(headers[name]).replace(/[\r\n]/g, " ")}\r\n`;
    return `${head}\r\n`;
  }

  /** The connection keeps the process alive only while an answer is awaited. */
  #expect() {
    this.#socket.ref();
    return new Promise((resolve, reject) => void this.#waiting.push({ resolve, reject }));
  }

  #connect() {
    if (this.#socket !== undefined || this.#isAbandoned) return this.#socket;
    const { connect } = process.getBuiltinModule("node:net");
    const socket = connect({ host: this.#host, port: this.#port, noDelay: true });
    const end = (error) => {
      // Another connection may be in its place by now, with somebody else waiting.
      if (this.#socket !== socket) return;
      this.drop();
      const reason = error instanceof Error ? error : new PlatformError("the Runtime API closed the connection");
      for (const { reject } of this.#waiting.splice(0)) reject(reason);
    };
    socket.on("data", (chunk) => {
      const reader = this.#reader;
      for (let response = reader.feed(chunk); response !== undefined; response = reader.rest()) {
        const waiting = this.#waiting.shift();
        if (this.#waiting.length === 0) socket.unref();
        waiting?.resolve(response);
      }
    });
    socket.on("error", end);
    socket.on("close", end);
    this.#socket = socket;
    return socket;
  }
}
