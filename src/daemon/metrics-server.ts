import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Logger, MetricsRegistry } from "../telemetry/index.ts";
import type { Address } from "./settings.ts";

const PATH = "/metrics";
/** Prometheus asks with one small GET; nobody needs longer to send it. */
const REQUEST_MS_MAX = 10_000;

/** A server of the metrics, with the address that was really taken. Disposing it ends it. */
export interface MetricsServer extends AsyncDisposable {
  readonly address: Address;
}

/**
 * Serves the metrics for Prometheus at `http://ADDRESS/metrics`, without authentication: they name operations and
 * workers, never functions. Rejects with the system's error when the address cannot be listened on.
 */
export const serveMetrics = async (
  listen: Address,
  metrics: Pick<MetricsRegistry, "contentType" | "text">,
  log: Logger,
): Promise<MetricsServer> => {
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.method !== "GET" || request.url?.split("?")[0] !== PATH) {
      response.writeHead(404, { "content-type": "text/plain" }).end(`There is only GET ${PATH} here.\n`);
      return;
    }
    try {
      const text = await metrics.text();
      response.writeHead(200, { "content-type": metrics.contentType }).end(text);
    } catch (error) {
      log.error({ err: error }, "the metrics could not be read");
      response.writeHead(500, { "content-type": "text/plain" }).end("The metrics could not be read.\n");
    }
  };
  const server = createServer(
    { requestTimeout: REQUEST_MS_MAX },
    (request, response) => void answer(request, response),
  );
  server.listen(listen);
  await once(server, "listening");
  // From here on it tells of connections that could not be accepted, for want of descriptors: whoever asks does so again.
  server.on("error", (error) => log.warn({ err: error }, "a connection for the metrics could not be accepted"));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new Error("The metrics' server has no address");
  return {
    address: { host: listen.host, port: bound.port },
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
};
