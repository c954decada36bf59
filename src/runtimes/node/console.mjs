/** `console` as Lambda has it: one line a call with time, request and level, or one JSON object a call. */
import { formatErrorForLog } from "./errors.mjs";

const LEVELS = { TRACE: 1, DEBUG: 2, INFO: 3, WARN: 4, ERROR: 5, FATAL: 6 };
const STDOUT = 1;
const { writeSync } = process.getBuiltinModule("node:fs");

let requestId;
let isJson = false;
let isPatched = false;

/** The request that log lines name from now on. */
export function setRequestId(id) {
  requestId = id;
}

/** Straight to the descriptor: process.stdout would cost a dozen system calls when first touched. */
function writeLine(line) {
  let rest = Buffer.from(`${line.replaceAll("\n", "\r")}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(STDOUT, rest));
    } catch (error) {
      if (error.code !== "EAGAIN") return;
    }
  }
}

function formatText(...values) {
  // A lone text without a format needs no formatter, and most log lines are that.
  if (values.length === 1 && typeof values[0] === "string") return values[0];
  return process.getBuiltinModule("node:util").format(...values);
}

const errorFields = (error) => ({
  errorType: error?.constructor?.name ?? "UnknownError",
  errorMessage: error.message,
  stackTrace: typeof error.stack === "string" ? error.stack.split("\n") : [],
});

function formatJson(level, message, ...values) {
  const record = { timestamp: new Date().toISOString(), level, requestId };
  if (values.length === 0) {
    const expand = (_key, value) => (value instanceof Error ? { ...errorFields(value), ...value } : value);
    try {
      return JSON.stringify({ ...record, message }, expand);
    } catch {
      return JSON.stringify({ ...record, message: formatText(message) });
    }
  }
  const error = values.find((value) => value instanceof Error);
  return JSON.stringify({ ...record, message: formatText(message, ...values), ...(error && errorFields(error)) });
}

/** Replaces the methods of `console`. AWS_LAMBDA_LOG_FORMAT and AWS_LAMBDA_LOG_LEVEL are read once, here. */
export function patchConsole(idBeforeFirstRequest) {
  requestId = idBeforeFirstRequest;
  isPatched = true;
  isJson = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === "JSON";
  const lowest = LEVELS[process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()] ?? LEVELS.TRACE;
  const at = (level) => {
    if (LEVELS[level] < lowest) return () => {};
    if (isJson) return (...values) => writeLine(formatJson(level, ...values));
    return (...values) => writeLine(`${new Date().toISOString()}\t${requestId}\t${level}\t${formatText(...values)}`);
  };
  console.trace = at("TRACE");
  console.debug = at("DEBUG");
  console.info = at("INFO");
  console.log = console.info;
  console.warn = at("WARN");
  console.error = at("ERROR");
  console.fatal = at("FATAL");
}

/** Logs an error of the function, as Lambda titles it. */
export function logError(title, error) {
  if (!isPatched) return;
  const wrapped = error instanceof Error ? error : new Error(String(error));
  if (isJson) console.error(wrapped);
  else console.error(title, formatErrorForLog(wrapped));
}
