/** Errors of the runtime itself, with the names that Lambda gives them, and how errors are put into JSON. */

class RuntimeError extends Error {}
const named = (errorClass, name) => {
  // On the prototype, so that the stack's first line has it too.
  errorClass.prototype.name = `Runtime.${name}`;
};

export class HandlerNotFound extends RuntimeError {}
named(HandlerNotFound, "HandlerNotFound");
export class MalformedHandlerName extends RuntimeError {}
named(MalformedHandlerName, "MalformedHandlerName");
export class MalformedStreamingHandler extends RuntimeError {}
named(MalformedStreamingHandler, "MalformedStreamingHandler");
export class InvalidStreamingOperation extends RuntimeError {}
named(InvalidStreamingOperation, "InvalidStreamingOperation");
export class CallbackHandlerDeprecated extends RuntimeError {}
named(CallbackHandlerDeprecated, "CallbackHandlerDeprecated");
export class PlatformError extends RuntimeError {}
named(PlatformError, "PlatformError");

export class ImportModuleError extends RuntimeError {
  constructor(original) {
    super(String(original));
  }
}
named(ImportModuleError, "ImportModuleError");

export class UserCodeSyntaxError extends RuntimeError {
  constructor(original) {
    super(String(original));
    this.stack = `Runtime.UserCodeSyntaxError: ${original.stack}`;
  }
}
named(UserCodeSyntaxError, "UserCodeSyntaxError");

export class StringifyError extends RuntimeError {
  constructor() {
    super("Unable to stringify response body");
  }
}
named(StringifyError, "JSONStringifyError");

export class UnhandledPromiseRejection extends RuntimeError {
  constructor(reason, promise) {
    super(reason);
    this.reason = reason;
    this.promise = promise;
  }
}
named(UnhandledPromiseRejection, "UnhandledPromiseRejection");

const isError = (value) => value instanceof Error || Object.prototype.toString.call(value) === "[object Error]";
const escapeDelete = (text) => (typeof text === "string" ? text.replaceAll("\x7f", "%7F") : text);

/** The body that the Runtime API gets for an error. */
export function formatError(error) {
  try {
    if (!isError(error)) return { errorType: typeof error, errorMessage: String(error), trace: [] };
    return {
      errorType: escapeDelete(error.name),
      errorMessage: escapeDelete(error.message),
      trace: escapeDelete(error.stack)?.split("\n") ?? [],
    };
  } catch {
    return {
      errorType: "handled",
      errorMessage:
        "callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack",
      trace: [],
    };
  }
}

/** An error as the log has it: with all its own properties, and the causes within. */
export function formatErrorForLog(error) {
  const expand = (_key, value) => {
    if (!isError(value)) return value;
    const expanded = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
    if (typeof value.stack === "string") expanded.stack = value.stack.split("\n");
    return expanded;
  };
  try {
    return `\t${JSON.stringify(error, expand)}`;
  } catch {
    return `\t${JSON.stringify(formatError(error))}`;
  }
}

/** A longer header would be refused, and with it the error that it belongs to. */
const XRAY_CAUSE_CHARS_MAX = 1024 * 1024;
/** Of an error in JSON: as a trailer it is base64 of UTF-8, and all trailers together may have 128 KiB. */
const TRAILER_ERROR_CHARS_MAX = 24 * 1024;

/** An error that is cut to what a trailer holds. */
export function formatErrorForTrailer(error) {
  const formatted = formatError(error);
  if (JSON.stringify(formatted).length <= TRAILER_ERROR_CHARS_MAX) return formatted;
  const { errorType, errorMessage } = formatted;
  return { errorType, errorMessage: String(errorMessage).slice(0, TRAILER_ERROR_CHARS_MAX / 2), trace: [] };
}

/** The header Lambda-Runtime-Function-XRay-Error-Cause; empty when there is nothing to say, or too much. */
export function formatXRayCause(error) {
  try {
    if (!isError(error)) return "";
    const stack = String(error.stack ?? "")
      .split("\n")
      .slice(1)
      .map((line) => {
        const text = line
          .trim()
          .replace(/[()]/g, "")
          .replace(/^\S*\s/, "");
        const space = text.lastIndexOf(" ");
        const [path, lineNumber] = (space >= 0 ? text.slice(space + 1) : text).split(":");
        return { path, line: Number.parseInt(lineNumber, 10), label: space >= 0 ? text.slice(0, space) : "anonymous" };
      });
    const exception = { type: escapeDelete(error.name), message: escapeDelete(error.message), stack };
    const paths = [...new Set(stack.map((entry) => entry.path))];
    const cause = JSON.stringify({ working_directory: process.cwd(), exceptions: [exception], paths });
    // A header is one line of printable ASCII: JSON may escape the rest.
    const escaped = cause.replace(/[^\x20-\x7e]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
    return escaped.length < XRAY_CAUSE_CHARS_MAX ? escaped : "";
  } catch {
    return "";
  }
}
