/**
 * The runtime client of nodejs22.x and nodejs24.x: asks the Runtime API for events, calls the function's
 * handler, reports results and errors. Behaves as AWS's own client does, in texts too.
 *
 * It runs in the guest, on one CPU, where a system call costs as much as forty on the host: so no HTTP
 * library, no module that is not needed, and one connection for everything. The image build joins these
 * files into one (scripts/images/join-modules.ts), so names at their top level are unique among them.
 */
import { patchConsole, logError, setRequestId } from "./console.mjs";
import { defineGlobals, loadHandler } from "./handler.mjs";
import { formatError, formatXRayCause, StringifyError, UnhandledPromiseRejection } from "./errors.mjs";
import { becomeFunction, isPrepared } from "./prepared.mjs";
import { RuntimeApi } from "./runtime-api.mjs";
import { respondInStream } from "./streaming.mjs";
import { buildContext, invokeStore } from "./context.mjs";

/** Up to Node 22 a handler may take a callback, and an empty event loop ends an invocation. */
const isCallbackEra = Number(process.versions.node.split(".", 1)[0]) < 24;
const EXIT_UNCAUGHT = 129;
const EXIT_UNHANDLED = 128;

const API_AUTHORITY = process.env.AWS_LAMBDA_RUNTIME_API ?? "127.0.0.1:9001";
const api = new RuntimeApi(API_AUTHORITY);

/** Path under the API where an error that nobody caught belongs now: the init, or the invocation that runs. */
let currentErrorPath = "/runtime/init/error";
let isEnding = false;
/** Called when nothing is left to do in the event loop. */
let onEmptyLoop;

async function postError(to, path, error) {
  const formatted = formatError(error);
  const cause = formatXRayCause(error);
  const headers = { "Lambda-Runtime-Function-Error-Type": String(formatted.errorType) };
  if (cause !== "" && path !== "/runtime/init/error") headers["Lambda-Runtime-Function-XRay-Error-Cause"] = cause;
  await to.post(path, JSON.stringify(formatted), headers);
}

/** Reports an error that nobody caught and ends the process: the next invocation gets a new one. */
function endWith(title, error, exitCode) {
  if (isEnding) return;
  isEnding = true;
  logError(title, error);
  // Whatever else is under way comes to no end any more: this error is the last word.
  api.abandon();
  const end = () => process.exit(exitCode);
  postError(new RuntimeApi(API_AUTHORITY), currentErrorPath, error).then(end, end);
}

function stringify(value) {
  try {
    return JSON.stringify(value === undefined ? null : value) ?? "null";
  } catch {
    throw isCallbackEra ? new Error("Unable to stringify response body") : new StringifyError();
  }
}

const afterOthers = () => new Promise((resolve) => void setImmediate(resolve));

async function succeed(path, result) {
  await api.answer(`${path}/response`, stringify(result));
}

async function fail(path, error) {
  logError("Invoke Error", error);
  await postError(api, `${path}/error`, error);
}

/** Node 24 and later: whatever the handler returns or resolves to is the answer. */
async function invokePromise(handler, event, context, path) {
  try {
    const result = await handler(event, context);
    await afterOthers();
    await succeed(path, result);
  } catch (error) {
    await afterOthers();
    await fail(path, error);
  }
}

/**
 * Up to Node 22: an answer comes through a promise, the callback, or context.done and its kin. After the
 * callback the answer waits for an empty event loop unless the function declined that; a handler that does
 * none of all this answers `null` as soon as the loop is empty.
 */
function invokeCallback(handler, event, context, path) {
  const { promise, resolve, reject } = Promise.withResolvers();
  let isAnswered = false;
  let isDone = false;
  const answer = (work) => {
    isDone = true;
    onEmptyLoop = undefined;
    work().then(resolve, reject);
  };
  const done = (error, result) => {
    if (isDone) return;
    if (error !== undefined && error !== null) return answer(() => fail(path, error));
    let body;
    try {
      body = stringify(result);
    } catch (stringifyError) {
      return answer(() => fail(path, stringifyError));
    }
    answer(() => api.post(`${path}/response`, body, {}));
  };
  const once =
    (function_) =>
    (...values) => {
      if (isAnswered) return;
      isAnswered = true;
      function_(...values);
    };
  const callback = once((error, result) => {
    onEmptyLoop = undefined;
    const failed = error !== undefined && error !== null;
    if (failed || !context.callbackWaitsForEmptyEventLoop) return done(error, result);
    onEmptyLoop = () => void setImmediate(() => done(null, result));
  });
  context.callbackWaitsForEmptyEventLoop = true;
  context.succeed = once((result) => done(null, result));
  context.fail = once((error) => done(error ?? "handled", null));
  context.done = once(done);
  onEmptyLoop = () => {
    isAnswered = true;
    done(null, null);
  };
  try {
    const result = handler(event, context, callback);
    if (typeof result?.then === "function") result.then(context.succeed, context.fail);
  } catch (error) {
    callback(error);
  }
  return promise;
}

async function serve(handler, metadata) {
  for (;;) {
    const { headers, body } = await api.next();
    const context = buildContext(headers);
    const path = `/runtime/invocation/${encodeURIComponent(context.awsRequestId)}`;
    currentErrorPath = `${path}/error`;
    setRequestId(context.awsRequestId);
    const traceId = headers["lambda-runtime-trace-id"];
    if (traceId) process.env._X_AMZN_TRACE_ID = traceId;
    else delete process.env._X_AMZN_TRACE_ID;
    await invokeStore.run(context, () => {
      const event = JSON.parse(body);
      if (metadata.isStreaming) return respondInStream(api, handler, event, context, path, metadata.highWaterMark);
      return isCallbackEra
        ? invokeCallback(handler, event, context, path)
        : invokePromise(handler, event, context, path);
    });
    onEmptyLoop = undefined;
  }
}

function start() {
  defineGlobals(invokeStore);
  patchConsole(isCallbackEra ? "undefined" : "-");
  process.on("uncaughtException", (error) => endWith("Uncaught Exception", error, EXIT_UNCAUGHT));
  process.on("unhandledRejection", (reason, promise) =>
    endWith("Unhandled Promise Rejection", new UnhandledPromiseRejection(reason, promise), EXIT_UNHANDLED),
  );
  process.on("beforeExit", () => onEmptyLoop?.());

  loadHandler(process.env.LAMBDA_TASK_ROOT ?? "/var/task", process.env._HANDLER ?? "", isCallbackEra).then(
    (loaded) => serve(loaded.handler, loaded).catch((error) => endWith("Uncaught Exception", error, EXIT_UNCAUGHT)),
    (error) => endWith(isCallbackEra ? "Uncaught Exception" : "Init Error", error, isCallbackEra ? EXIT_UNCAUGHT : 1),
  );
}

const REHEARSAL = "/var/runtime/rehearsal/rehearsal";

/**
 * Loads a function and goes through an invocation that nobody asked for: the function that comes then finds all that
 * this takes loaded and compiled. The API declines the answer.
 */
async function rehearse() {
  await loadHandler("/", `${REHEARSAL}.handler`, isCallbackEra);
  const { handler } = await import(`${REHEARSAL}.mjs`);
  const headers = {
    "lambda-runtime-aws-request-id": "rehearsal",
    "lambda-runtime-invoked-function-arn": "",
    "lambda-runtime-deadline-ms": "0",
  };
  const invokeOnce = isCallbackEra ? invokeCallback : invokePromise;
  await invokeOnce(handler, JSON.parse("{}"), buildContext(headers), "/runtime/invocation/rehearsal");
  onEmptyLoop = undefined;
}

async function prepare() {
  await rehearse();
  await becomeFunction(api);
  start();
}

if (isPrepared) prepare();
else start();
