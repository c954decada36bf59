/** Handlers that stream their answer: `awslambda.streamifyResponse` and `awslambda.HttpResponseStream`. */
import { logError } from "./console.mjs";
import { formatErrorForTrailer, InvalidStreamingOperation } from "./errors.mjs";

const PRELUDE_CONTENT_TYPE = "application/vnd.awslambda.http-integration-response";
/** NUL bytes between an HTTP prelude and the body. */
const PRELUDE_DELIMITER_BYTES = 8;
const ERROR_TYPE_TRAILER = "Lambda-Runtime-Function-Error-Type";
const ERROR_BODY_TRAILER = "Lambda-Runtime-Function-Error-Body";

export class HttpResponseStream {
  /** Makes the stream begin with an HTTP status, headers and cookies, as function URLs and gateways read them. */
  static from(stream, prelude) {
    stream.setContentType(PRELUDE_CONTENT_TYPE);
    const text = JSON.stringify(prelude);
    stream._onBeforeFirstWrite = (write) => {
      write(text);
      write(new Uint8Array(PRELUDE_DELIMITER_BYTES));
    };
    return stream;
  }
}

/** Made when first needed: few functions stream. */
function makeResponseStream(api, path, highWaterMark) {
  const { Writable } = process.getBuiltinModule("node:stream");
  let contentType = "application/octet-stream";
  let isBegun = false;
  let connection;
  let isAnswered = false;
  const response = Promise.withResolvers();
  // It may fail while the handler still writes, and nobody waits for it yet.
  response.promise.catch(() => {});

  const begin = () => {
    if (connection !== undefined) return connection;
    connection = api.openStream(`${path}/response`, {
      "Lambda-Runtime-Function-Response-Mode": "streaming",
      Trailer: `${ERROR_TYPE_TRAILER}, ${ERROR_BODY_TRAILER}`,
      "Content-Type": contentType,
      "Transfer-Encoding": "chunked",
    });
    connection.response.then(
      (answer) => {
        isAnswered = true;
        response.resolve(answer);
        if (stream.writableEnded) return;
        // Answered before its end: refused, as what is over the limit is. Nobody takes the rest.
        api.drop();
        stream.destroy(new Error(`The response stream was refused: HTTP ${answer.status}`));
      },
      (error) => {
        isAnswered = true;
        response.reject(error);
        stream.destroy(error);
      },
    );
    return connection;
  };
  const writeChunk = (bytes, callback) => {
    if (bytes.length === 0) return callback();
    const { socket } = begin();
    socket.cork();
    socket.write(`${bytes.length.toString(16)}\r\n`);
    socket.write(bytes);
    const isFlowing = socket.write("\r\n");
    socket.uncork();
    if (isFlowing) callback();
    else socket.once("drain", callback);
  };
  const finish = (trailers, callback) => {
    begin().socket.write(`0\r\n${trailers}\r\n`);
    callback();
  };

  let trailers = "";
  const stream = new Writable({
    ...(highWaterMark !== undefined && { highWaterMark }),
    write: (chunk, _encoding, callback) => writeChunk(chunk, callback),
    final: (callback) => finish(trailers, callback),
  });
  const write = stream.write.bind(stream);
  const beforeFirst = () => {
    if (isBegun) return;
    isBegun = true;
    stream._onBeforeFirstWrite?.((chunk) => write(chunk));
  };
  stream.write = (chunk, ...rest) => {
    beforeFirst();
    const isBytes = typeof chunk === "string" || chunk instanceof Uint8Array;
    return write(isBytes ? chunk : JSON.stringify(chunk), ...rest);
  };
  stream.setContentType = (value) => {
    if (isBegun) throw new InvalidStreamingOperation("Cannot set content-type, too late.");
    contentType = value;
  };
  const fail = (error) => {
    const formatted = formatErrorForTrailer(error);
    trailers =
      `${ERROR_TYPE_TRAILER}: ${formatted.errorType}\r\n` +
      `${ERROR_BODY_TRAILER}: ${Buffer.from(JSON.stringify(formatted)).toString("base64")}\r\n`;
    if (!stream.destroyed && !stream.writableEnded) stream.end();
    // Whatever the function wrote is gone with the stream; the answer must still be closed.
    else if (!stream.writableFinished && !isAnswered) finish(trailers, () => {});
  };
  return { stream, fail, response: response.promise };
}

/** Runs a streaming handler. Resolves when the answer is out and acknowledged. */
export async function respondInStream(api, handler, event, context, path, highWaterMark) {
  const { stream, fail, response } = makeResponseStream(api, path, highWaterMark);
  // Errors of the connection come out of `response`.
  stream.on("error", () => {});
  try {
    const result = handler(event, stream, context);
    if (typeof result?.then !== "function") throw new Error("Streaming does not support non-async handlers.");
    if ((await result) !== undefined) console.warn("Streaming handlers ignore return values.");
    await response;
    if (!stream.writableFinished) throw new Error("Response stream is not finished.");
  } catch (error) {
    await new Promise((resolve) => void setImmediate(resolve));
    logError("Invoke Error", error);
    fail(error);
    await response.catch(() => {});
  }
}
