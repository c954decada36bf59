import { Agent, request } from "node:http";
import { buffer } from "node:stream/consumers";

/** What came back: HTTP's status, or 0 when the connection broke. */
export interface PlainAnswer {
  readonly status: number;
  readonly functionError: boolean;
  readonly body: string;
}

/**
 * Invokes over kept connections without signing and without the SDK: where hundreds of clients share the machine with
 * what they measure, theirs must be the smaller part of the work.
 */
export class PlainClient implements Disposable {
  readonly #endpoint: URL;
  readonly #agent: Agent;

  /** `connections`: how many calls may be under way at once. */
  constructor(endpoint: string, connections: number) {
    this.#endpoint = new URL(endpoint);
    this.#agent = new Agent({ keepAlive: true, maxSockets: connections });
  }

  /** Never rejects. An event (`Event`) is answered with 202 once it is accepted. */
  async invoke(
    name: string,
    payload = "{}",
    type: "RequestResponse" | "Event" = "RequestResponse",
  ): Promise<PlainAnswer> {
    try {
      const { promise, resolve, reject } = Promise.withResolvers<PlainAnswer>();
      const path = `/2015-03-31/functions/${name}/invocations`;
      const headers = { "content-length": Buffer.byteLength(payload), "x-amz-invocation-type": type };
      const sent = request(this.#endpoint, { method: "POST", path, agent: this.#agent, headers }, (response) => {
        buffer(response).then(
          (body) =>
            resolve({
              status: response.statusCode ?? 0,
              functionError: response.headers["x-amz-function-error"] !== undefined,
              body: body.toString(),
            }),
          reject,
        );
      });
      sent.on("error", reject);
      sent.end(payload);
      return await promise;
    } catch (error) {
      return { status: 0, functionError: false, body: error instanceof Error ? error.message : String(error) };
    }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}

/** Whether the function answered and did not fail. */
export const isGood = ({ status, functionError }: PlainAnswer): boolean => status === 200 && !functionError;
