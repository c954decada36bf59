import { connect } from "node:net";
import type { Socket } from "node:net";

/*
 * HTTP written by hand, for clients that no library would be: what is sent is sent as it stands.
 */

/** What the other side sent until it ended the connection, or until it was broken. */
export interface RawAnswer {
  readonly text: string;
  /** Null when there is no status line. */
  readonly status: number | null;
  readonly headers: ReadonlyMap<string, string>;
}

const parse = (text: string): RawAnswer => {
  const [head = ""] = text.split("\r\n\r\n");
  const [first = "", ...lines] = head.split("\r\n");
  const status = /^HTTP\/1\.1 (\d{3})/.exec(first)?.[1];
  const headers = lines.map((line): [string, string] => {
    const at = line.indexOf(":");
    return [line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()];
  });
  return { text, status: status === undefined ? null : Number(status), headers: new Map(headers) };
};

/** A connection that says what comes; `answer` resolves when the other side has ended it. */
export class RawConnection implements Disposable {
  readonly socket: Socket;
  readonly answer: Promise<RawAnswer>;
  #text = "";

  constructor(port: number, host = "127.0.0.1") {
    this.socket = connect({ port, host, allowHalfOpen: true });
    this.socket.setEncoding("latin1").on("data", (chunk) => (this.#text += String(chunk)));
    this.answer = new Promise((resolve) => {
      const end = (): void => {
        this.socket.destroy();
        resolve(parse(this.#text));
      };
      // Broken counts as ended: what had come before is what is asked for.
      this.socket.on("error", end).on("end", end).on("close", end);
    });
  }

  /** What has come so far. */
  get text(): string {
    return this.#text;
  }

  send(data: string | Uint8Array): this {
    this.socket.write(data);
    return this;
  }

  /** Ends our half of the connection. */
  end(data = ""): this {
    this.socket.end(data);
    return this;
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** The head of a request, without a body's unless it is named. */
export const headOf = (method: string, path: string, headers: Readonly<Record<string, string | number>> = {}): string =>
  `${method} ${path} HTTP/1.1\r\n${Object.entries({ Host: "localhost", ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")}\r\n`;
