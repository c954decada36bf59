import { createServer, STATUS_CODES } from "node:http";
import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import { Digest } from "../../lib/digest.ts";
import type { Clock } from "../../lib/clock.ts";
import type { ConnectionEnd, Logger } from "../../telemetry/index.ts";
import { HTTP_REQUEST_MS_MAX } from "../../wire/limits.ts";
import { Connections } from "./connections.ts";
import type { Certificate } from "./tls.ts";
import {
  ADDRESS_SHARE,
  HEAD_BYTES_MAX,
  HEAD_CHECK_MS,
  HEAD_MS_MAX,
  KEEP_ALIVE_MS,
  LOG_EVERY_MS,
  PARSED_BYTES_MAX,
  PIPELINED_MAX,
  REFUSAL_MS_MAX,
  REFUSALS_MAX,
} from "./limits.ts";

/*
 * The listening side of the API: which connections are taken in, how long they may take, and what is answered where no
 * request is whole. Everything behind a whole head is server.ts.
 */

export interface ListenerOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly connectionsMax: number;
  /** What TLS is served with; null for plain HTTP. */
  readonly certificate: Certificate | null;
  /** Told of each connection that was closed, or not taken in, to keep the limits. */
  readonly onConnectionEnd: (end: ConnectionEnd) => void;
}

export interface Listener extends Disposable {
  readonly connections: Connections;
  /** For a web framework: makes the server whose requests `handler` answers. */
  createServer(handler: RequestListener): Server;
  /** Lets a client that waits for it (`Expect: 100-continue`) send its body. */
  continue(request: IncomingMessage): void;
  /** Whether the client sends no body before it is told to. */
  waits(request: IncomingMessage): boolean;
}

const HTTP_BAD_REQUEST = 400;
const HTTP_TIMEOUT = 408;
const HTTP_HEAD_TOO_LARGE = 431;
const HTTP_UNAVAILABLE = 503;

const ENDS: Readonly<Record<ConnectionEnd, string>> = {
  evicted: "connections were closed for newer ones: all that may be open were",
  refused: "connections were refused: all that may be open are at work",
  pipelined: "connections were closed: more requests than may be were sent ahead of the answers",
};

/** An answer without a request, as the API words errors. */
const rawAnswer = (status: number, name: string, message: string): string => {
  const body = JSON.stringify({ message });
  const retry = status === HTTP_UNAVAILABLE ? "retry-after: 1\r\n" : "";
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\ncontent-type: application/json\r\nx-amzn-errortype: ${name}\r\n` +
    `${retry}content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`
  );
};

/** What is answered to what is no request, by the error of Node's parser. */
const answerTo = (code: string): string => {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return rawAnswer(HTTP_TIMEOUT, "RequestTimeoutException", "The request did not come in time.");
  }
  if (code === "HPE_HEADER_OVERFLOW") {
    const message = `The request's head must be at most ${HEAD_BYTES_MAX} bytes long.`;
    return rawAnswer(HTTP_HEAD_TOO_LARGE, "RequestHeaderFieldsTooLargeException", message);
  }
  return rawAnswer(HTTP_BAD_REQUEST, "BadRequestException", `What came is no HTTP request (${code}).`);
};

/**
 * Hands what was read of a connection to its parser piece by piece, until the connection is closed. Node makes a request of
 * everything in one read of 64 KiB, over a thousand of them, before it looks whether the socket is still there. Called
 * once the server's own listeners are on the socket.
 */
const parseInPieces = (socket: Socket): void => {
  const parse = socket.listeners("data");
  socket.removeAllListeners("data");
  socket.on("data", (read: Buffer) => {
    for (let at = 0; at < read.byteLength && !socket.destroyed; at += PARSED_BYTES_MAX) {
      const piece = read.subarray(at, at + PARSED_BYTES_MAX);
      for (const listener of parse) listener.call(socket, piece);
    }
  });
};

class HttpListener implements Listener {
  readonly connections: Connections;
  readonly #clock: Clock;
  readonly #digest: Digest;
  readonly #connectionsMax: number;
  readonly #certificate: Certificate | null;
  readonly #waiting = new WeakMap<IncomingMessage, ServerResponse>();
  /** Refused connections that may still read why. */
  #refusals = 0;

  constructor({ clock, log, connectionsMax, certificate, onConnectionEnd }: ListenerOptions) {
    this.#certificate = certificate;
    this.#clock = clock;
    this.#connectionsMax = connectionsMax;
    this.#digest = new Digest(clock, LOG_EVERY_MS, (message, count, last) => log.warn({ count, last }, message));
    const perAddressMax = Math.max(1, Math.floor(connectionsMax * ADDRESS_SHARE));
    this.connections = new Connections({ connectionsMax, perAddressMax }, (end, address) => {
      onConnectionEnd(end);
      this.#digest.note(ENDS[end], address);
    });
  }

  createServer(handler: RequestListener): Server {
    const server = this.#makeServer((request, response) => this.#serve(handler, request, response));
    // A client that ends its half of the connection after the request (`nc -N`) waits for its answer. Node has this as a
    // property of its server only (`httpAllowHalfOpen`).
    Object.assign(server, { httpAllowHalfOpen: true });
    // What is left when our own counting fails.
    server.maxConnections = this.#connectionsMax + 2 * REFUSALS_MAX;
    server.prependListener("connection", (socket: Socket) => {
      if (!this.connections.admit(socket)) this.#refuse(socket);
    });
    server.on(this.#certificate === null ? "connection" : "secureConnection", parseInPieces);
    server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
      this.#waiting.set(request, response);
      this.#serve(handler, request, response);
    });
    server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => this.#onClientError(error, socket));
    // An accept that fails for want of descriptors, say: whoever was to be accepted is closed by the host.
    server.on("error", (error) => {
      if (server.listening) this.#digest.note("a connection could not be accepted", error.message);
    });
    return server;
  }

  #makeServer(serve: RequestListener): Server {
    const options = {
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: HEAD_MS_MAX,
      requestTimeout: HTTP_REQUEST_MS_MAX,
      connectionsCheckingInterval: HEAD_CHECK_MS,
      maxHeaderSize: HEAD_BYTES_MAX,
      keepAlive: true,
      noDelay: true,
    };
    const certificate = this.#certificate;
    if (certificate === null) return createServer(options, serve);
    const { cert, key } = certificate.current;
    const secure = { cert, key, minVersion: "TLSv1.2", handshakeTimeout: HEAD_MS_MAX } as const;
    const server = createTlsServer({ ...options, ...secure }, serve);
    certificate.serve(server);
    return server;
  }

  continue(request: IncomingMessage): void {
    this.#waiting.get(request)?.writeContinue();
    this.#waiting.delete(request);
  }

  waits(request: IncomingMessage): boolean {
    return this.#waiting.has(request);
  }

  #serve(handler: RequestListener, request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    if (!this.connections.begin(socket, PIPELINED_MAX)) return;
    response.once("close", () => this.connections.end(socket));
    handler(request, response);
  }

  #refuse(socket: Socket): void {
    // Before a TLS handshake nothing can be said.
    if (this.#refusals >= REFUSALS_MAX || this.#certificate !== null) {
      socket.destroy();
      return;
    }
    this.#refusals += 1;
    const timer = this.#clock.after(REFUSAL_MS_MAX, () => socket.destroy());
    socket.once("close", () => {
      this.#refusals -= 1;
      timer[Symbol.dispose]();
    });
    const message = "Hearth has as many connections at work as it may have. Try again when fewer requests run.";
    socket.end(rawAnswer(HTTP_UNAVAILABLE, "ServiceUnavailableException", message));
  }

  #onClientError(error: NodeJS.ErrnoException, socket: Socket): void {
    // In the middle of an answer, or behind one that was refused, nothing can be said.
    if (error.code !== "ECONNRESET" && socket.writable && socket.bytesWritten === 0) {
      socket.end(answerTo(error.code ?? "unknown"), () => socket.destroy());
    } else {
      socket.destroy();
    }
    this.#digest.note("requests were not understood, or did not come in time", error.code ?? error.message);
  }

  [Symbol.dispose](): void {
    this.#digest[Symbol.dispose]();
  }
}

export const createListener = (options: ListenerOptions): Listener => new HttpListener(options);
