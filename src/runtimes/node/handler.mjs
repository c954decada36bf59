/** Finds the function's handler: `file.export`, `folder/file.nested.export`, CommonJS and ES modules. */
import {
  CallbackHandlerDeprecated,
  HandlerNotFound,
  ImportModuleError,
  MalformedHandlerName,
  MalformedStreamingHandler,
  UserCodeSyntaxError,
} from "./errors.mjs";
import { HttpResponseStream } from "./streaming.mjs";

const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const HIGH_WATER_MARK = Symbol.for("aws.lambda.runtime.handler.streaming.highWaterMark");
const STREAM_RESPONSE = "response";
const CALLBACK_DEPRECATED =
  "ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need to modify this function to use a supported handler signature to use Node.js 24 or later. For more information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.";

const path = process.getBuiltinModule("node:path");
const { existsSync, readFileSync } = process.getBuiltinModule("node:fs");
const requireFromHere = process.getBuiltinModule("node:module").createRequire("/var/runtime/index.mjs");

/** `awslambda`, which streaming functions use, and the SDK's store of the invocation. */
export function defineGlobals(store) {
  const without = process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA;
  if (without === "1" || without === "true") return;
  const streamifyResponse = (handler, options) => {
    handler[STREAMING] = STREAM_RESPONSE;
    if (typeof options?.highWaterMark === "number") handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
    return handler;
  };
  globalThis.awslambda = { ...globalThis.awslambda, streamifyResponse, HttpResponseStream, InvokeStore: store };
}

function splitHandler(text) {
  if (text.includes("..")) {
    throw new MalformedHandlerName(
      `'${text}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const name = path.basename(text);
  const match = /^([^.]*)\.(.*)$/.exec(name);
  if (match === null) throw new MalformedHandlerName("Bad handler");
  return { folder: text.slice(0, text.indexOf(name)), module: match[1], exported: match[2] };
}

/** Whether the nearest package.json says that .js files here are ES modules. */
function isModuleFolder(folder) {
  if (folder.endsWith("/node_modules")) return false;
  const file = path.join(folder, "package.json");
  if (existsSync(file)) {
    try {
      return JSON.parse(readFileSync(file, "utf8"))?.type === "module";
    } catch (error) {
      console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return folder === "/" ? false : isModuleFolder(path.dirname(folder));
}

async function importFile(file) {
  try {
    return requireFromHere(file);
  } catch (error) {
    // An ES module with a top-level await, in a .js file that nothing declares to be one.
    if (error?.code === "ERR_REQUIRE_ASYNC_MODULE") return await import(file);
    throw error;
  }
}

async function loadModule(root, folder, name) {
  const file = path.resolve(root, folder, name);
  if (existsSync(`${file}.js`) && !existsSync(file)) {
    return isModuleFolder(path.dirname(file)) ? await import(`${file}.js`) : await importFile(`${file}.js`);
  }
  if (existsSync(file)) return await importFile(file);
  if (existsSync(`${file}.mjs`)) return await import(`${file}.mjs`);
  if (existsSync(`${file}.cjs`)) return await importFile(`${file}.cjs`);
  return requireFromHere(requireFromHere.resolve(name, { paths: [root, path.join(root, folder)] }));
}

const findIn = (object, names) => names.split(".").reduce((found, name) => found?.[name], object);

/** Resolves to the handler and what it says of itself. Rejects with a `Runtime.…` error as Lambda names it. */
export async function loadHandler(root, text, isCallbackAllowed) {
  const { folder, module, exported } = splitHandler(text);
  let namespace;
  try {
    namespace = await loadModule(root, folder, module);
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserCodeSyntaxError(error);
    if (error?.code === "MODULE_NOT_FOUND") throw new ImportModuleError(error);
    throw error;
  }
  const handler = findIn(namespace, exported) ?? findIn(namespace?.default, exported);
  if (!handler) throw new HandlerNotFound(`${text} is undefined or not exported`);
  if (typeof handler !== "function") throw new HandlerNotFound(`${text} is not a function`);
  const streaming = handler[STREAMING];
  if (streaming && streaming !== STREAM_RESPONSE) {
    throw new MalformedStreamingHandler("Only response streaming is supported.");
  }
  if (!isCallbackAllowed && !streaming && handler.length >= 3) throw new CallbackHandlerDeprecated(CALLBACK_DEPRECATED);
  return { handler, isStreaming: Boolean(streaming), highWaterMark: Number(handler[HIGH_WATER_MARK]) || undefined };
}
