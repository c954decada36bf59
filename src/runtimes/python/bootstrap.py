"""The runtime client of python3.11: asks the Runtime API for events, calls the function's handler, reports
results and errors. Behaves as AWS's own client does, in texts too.

It runs in the guest, where a system call costs as much as forty on the host and every module read from disk
counts: so it speaks HTTP over a bare socket, and imports what few functions need only when they need it.
"""

import sys
from _socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY
from _socket import socket as Socket
from os import chdir, environ, execv, getcwd, listdir
from time import time, tzset

API_PREFIX = "/2018-06-01/runtime/"
RECEIVE_BYTES = 65536
"""A header longer than this would be refused."""
XRAY_CAUSE_BYTES_MAX = 1024 * 1024
"""More values than this in a result, and the full encoder looks through it instead of us."""
PLAIN_VALUES_MAX = 1000
NO_BREAK_SPACE = "\u00a0"


class Fault(Exception):
    """An error of the runtime's own, with the type that Lambda gives it."""

    def __init__(self, error_type, message, trace=None):
        super().__init__(message)
        self.error_type = "Runtime." + error_type
        self.message = message
        self.trace = trace


class RuntimeApi:
    """HTTP/1.1 over one connection that stays open, with just the parts of it that this takes."""

    def __init__(self, authority):
        host, _, port = authority.rpartition(":")
        self.authority = authority
        self.socket = Socket(AF_INET, SOCK_STREAM)
        self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self.socket.connect((host, int(port)))
        self.next_request = self._get(f"{API_PREFIX}invocation/next")

    def next(self):
        """Waits for the next event: its headers (names in lower case) and its body."""
        self.socket.sendall(self.next_request)
        status, headers, body = self._receive()
        if status != 200:
            raise Fault("LambdaRuntimeClientError", f"Failed to get next invocation: HTTP {status}")
        return headers, body

    def ask_function(self):
        """Waits, in a runtime that was started ahead, for its working directory and its environment."""
        self.socket.sendall(self._get("/hearth/function"))
        status, _, body = self._receive()
        if status != 200:
            sys.exit(1)
        # Each text ends with a NUL, which no variable can hold.
        directory, *variables = body.decode("utf-8", "surrogateescape").split("\0")[:-1]
        return directory, dict(variable.split("=", 1) for variable in variables)

    def _get(self, path):
        return f"GET {path} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode()

    def post(self, path, body, content_type="application/json", headers=()):
        """Sends a result or an error. The API judges it: whatever it answers, the runtime goes on."""
        lines = [f"POST {API_PREFIX}{path} HTTP/1.1", f"Host: {self.authority}", f"Content-Type: {content_type}"]
        lines.append(f"Content-Length: {len(body)}")
        for name, value in headers:
            text = value.replace("\r", " ").replace("\n", " ")
            lines.append(f"{name}: {text}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
        self.socket.sendall(head + body)
        return self._receive()[0]

    def _receive(self):
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._read()
        status_line, *lines = data[:end].decode("utf-8").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        rest = data[end + 4 :]
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks(rest)
        else:
            body = self._read_length(rest, int(headers.get("content-length", 0)))
        return int(status_line[9:12]), headers, body

    def _read(self):
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            # The sandbox is being taken down, or the API broke: either way there is nothing left to serve.
            sys.exit(1)
        return data

    def _read_length(self, first, length):
        if len(first) >= length:
            return first
        body = bytearray(length)
        body[: len(first)] = first
        filled = len(first)
        with memoryview(body) as view:
            while filled < length:
                got = self.socket.recv_into(view[filled:])
                if got == 0:
                    sys.exit(1)
                filled += got
        return bytes(body)

    def _read_chunks(self, data):
        body = []
        while True:
            while (end := data.find(b"\r\n")) < 0:
                data += self._read()
            size = int(data[:end].split(b";")[0], 16)
            while len(data) < end + 2 + size + 2:
                data += self._read()
            if size == 0:
                return b"".join(body)
            body.append(data[end + 2 : end + 2 + size])
            data = data[end + 2 + size + 2 :]


class CognitoIdentity:
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")


class Client:
    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")


class ClientContext:
    __slots__ = ("custom", "env", "client")


def fill_slots(target, values):
    for name in target.__slots__:
        setattr(target, name, values.get(name))
    return target


class LambdaContext:
    """What a handler gets as its second argument."""

    def __init__(self, headers):
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.log_group_name = environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self.client_context = None
        client_context = parse_header(headers, "lambda-runtime-client-context", "Client Context")
        if client_context is not None:
            self.client_context = fill_slots(ClientContext(), client_context)
            if self.client_context.client is not None:
                self.client_context.client = fill_slots(Client(), self.client_context.client)
        identity = parse_header(headers, "lambda-runtime-cognito-identity", "Cognito Identity") or {}
        self.identity = CognitoIdentity()
        self.identity.cognito_identity_id = identity.get("cognitoIdentityId")
        self.identity.cognito_identity_pool_id = identity.get("cognitoIdentityPoolId")
        self._deadline_ms = int(headers["lambda-runtime-deadline-ms"])

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - int(time() * 1000))

    def log(self, message):
        sys.stdout.write(str(message))

    def __repr__(self):
        fields = ",".join(f"{name}={value}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"LambdaContext([{fields}])"


def parse_header(headers, name, title):
    value = headers.get(name)
    if not value:
        return None
    import json

    try:
        return json.loads(value)
    except Exception as error:
        raise Fault("LambdaContextUnmarshalError", f"Unable to parse {title} JSON: {error}") from None


# --- JSON -----------------------------------------------------------------------------------------


def is_plain(value):
    """Whether a result has only JSON's own types, which both encoders write alike."""
    pending = [value]
    seen = 0
    while pending:
        item = pending.pop()
        kind = type(item)
        seen += 1
        if kind is dict:
            pending.extend(item.values())
        elif kind is list:
            pending.extend(item)
        elif kind not in (str, int, float, bool, type(None)):
            return False
        if seen + len(pending) > PLAIN_VALUES_MAX:
            return False
    return True


def encode_fully(value):
    """As Lambda encodes: also decimals (as they are written) and named tuples (as objects)."""
    import decimal

    import simplejson

    def encode_other(item):
        if isinstance(item, decimal.Decimal):
            return float("nan") if item.is_nan() else simplejson.RawJSON(str(item))
        raise TypeError(f"Object of type {type(item).__name__} is not JSON serializable")

    return simplejson.dumps(value, use_decimal=False, allow_nan=True, default=encode_other)


def encode(value):
    if not is_plain(value):
        return encode_fully(value)
    import json

    return json.dumps(value)


def marshal(result):
    """A result as bytes with their content type."""
    if isinstance(result, bytes):
        return result, "application/unknown"
    try:
        return encode(result).encode("utf-8"), "application/json"
    except Exception as error:
        raise Fault("MarshalError", f"Unable to marshal response: {error}") from None


def unmarshal(body, content_type):
    if content_type != "application/json":
        return body
    import json

    try:
        return json.loads(body)
    except Exception as error:
        raise Fault("UnmarshalError", f"Unable to unmarshal input: {error}") from None


# --- errors ---------------------------------------------------------------------------------------


def user_frames(exception):
    """The frames of a traceback from the function's first one on."""
    import traceback

    frames = [(frame.filename, frame.lineno, frame.name, frame.line) for frame in traceback.extract_tb(exception.__traceback__)]
    ours = main.__code__.co_filename
    own = next((index for index, frame in enumerate(frames) if frame[0] != ours and "<frozen " not in frame[0]), 0)
    return frames[own:]


def describe_error(exception, request_id=""):
    """The error's body for the Runtime API, and its cause in X-Ray's form."""
    if isinstance(exception, Fault):
        body = make_error(exception.message, exception.error_type, exception.trace, request_id)
        return body, make_xray_cause("LambdaValidationError", exception.message, [])
    import traceback

    frames = user_frames(exception)
    name = type(exception).__name__
    body = make_error(str(exception), name, traceback.format_list(frames), request_id)
    return body, make_xray_cause(name, str(exception), frames)


def make_error(message, error_type, trace, request_id):
    return {
        "errorMessage": message or "",
        "errorType": error_type or "",
        "requestId": request_id,
        "stackTrace": trace or [],
    }


def make_xray_cause(error_type, message, frames):
    stack = [{"label": name, "path": path, "line": line} for path, line, name, _ in frames]
    return {
        "working_directory": getcwd(),
        "exceptions": [{"message": message, "type": error_type, "stack": stack}],
        "paths": list({frame[0] for frame in frames}),
    }


def log_error(body):
    if is_json_log():
        from time import gmtime, strftime

        record = {"timestamp": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()), "level": "ERROR", **body}
        sys.stdout.write(encode(record) + "\n")
        return
    lines = ["[ERROR] " + ": ".join(text for text in (body["errorType"], body["errorMessage"]) if text)]
    lines.append("Traceback (most recent call last):")
    for entry in body["stackTrace"]:
        for line in entry.splitlines() or [""]:
            text = line.lstrip(" ")
            lines.append(NO_BREAK_SPACE * (len(line) - len(text)) + text)
    # One event in the log, however many lines: they part at "\r".
    sys.stdout.write("\r".join(lines) + "\n")


# --- logging --------------------------------------------------------------------------------------

current_request_id = ""
current_tenant_id = None


def is_json_log():
    return environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"


def set_up_logging(logging):
    """Gives the root logger Lambda's handler. Called when the function imports `logging`."""
    from time import gmtime

    class LambdaLoggerFilter(logging.Filter):
        def filter(self, record):
            record.aws_request_id = current_request_id
            record.tenant_id = current_tenant_id
            return True

    class LambdaLoggerHandler(logging.Handler):
        def emit(self, record):
            sys.stdout.write(self.format(record))

    logging.Formatter.converter = gmtime
    handler = LambdaLoggerHandler()
    handler.setFormatter(make_json_formatter(logging) if is_json_log() else make_text_formatter(logging))
    handler.addFilter(LambdaLoggerFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = {"TRACE": "DEBUG"}.get(level, level)
    if level in logging._nameToLevel:
        root.setLevel(level)


def make_text_formatter(logging):
    fields = ("[%(levelname)s]", "%(asctime)s.%(msecs)03dZ", "%(aws_request_id)s", "%(message)s\n")
    return logging.Formatter("\t".join(fields), "%Y-%m-%dT%H:%M:%S")


def make_json_formatter(logging):
    usual = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "aws_request_id", "tenant_id"}

    class JsonFormatter(logging.Formatter):
        def format(self, record):
            import json
            import traceback

            is_object = isinstance(record.msg, dict) and not record.args
            level = min(50, max(0, record.levelno)) // 10 * 10
            fields = {
                "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
                "level": logging.getLevelName(level),
                "message": record.msg if is_object else record.getMessage(),
                "logger": record.name,
            }
            if record.exc_info and record.exc_info[0] is not None:
                kind, error, trace = record.exc_info
                fields["stackTrace"] = traceback.format_tb(trace)
                fields["errorType"] = kind.__name__
                fields["errorMessage"] = str(error)
            fields["requestId"] = record.aws_request_id
            if record.exc_info:
                fields["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
            if record.tenant_id is not None:
                fields["tenantId"] = record.tenant_id
            extra = {key: value for key, value in vars(record).items() if key not in usual and key not in fields}
            known = {key: value for key, value in {**fields, **extra}.items() if value is not None}
            return json.dumps(known, ensure_ascii=False, default=str) + "\n"

    return JsonFormatter()


class LoggingHook:
    """Sees the import of `logging`, once, and sets it up when it is loaded: most functions never pay for it."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        load = spec.loader.exec_module

        def load_and_set_up(module):
            load(module)
            set_up_logging(module)

        spec.loader.exec_module = load_and_set_up
        return spec


# --- the function ---------------------------------------------------------------------------------


def load_handler(handler):
    """Imports `module.function`, `folder/module.function` or `package.module.function`."""
    module_name, dot, function_name = handler.rpartition(".")
    if not dot:
        message = f"Bad handler '{handler}': not enough values to unpack (expected 2, got 1)"
        raise Fault("MalformedHandlerName", message)
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = f"Cannot use built-in module {module_name} as a handler module"
        raise Fault("BuiltInModuleConflict", message)
    name = module_name.replace("/", ".")
    try:
        __import__(name)
    except ImportError as error:
        raise Fault("ImportModuleError", f"Unable to import module '{module_name}': {error}") from None
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        raise Fault("UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", trace) from None
    try:
        return getattr(sys.modules[name], function_name)
    except AttributeError:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        raise Fault("HandlerNotFound", message) from None


def set_search_path():
    """Lambda's order: the function, the layers, then what the runtime brings."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    task_root = environ.get("LAMBDA_TASK_ROOT", "/var/task")
    first = [task_root, f"/opt/python/lib/{version}/site-packages", "/opt/python"]
    runtime = [f"/var/lang/lib/{version}/site-packages", "/var/runtime"]
    sys.path[:] = first + runtime + [entry for entry in sys.path if entry not in first + runtime]


def serve(api, handler):
    global current_request_id, current_tenant_id
    while True:
        headers, body = api.next()
        request_id = headers["lambda-runtime-aws-request-id"]
        current_request_id = request_id
        current_tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        trace_id = headers.get("lambda-runtime-trace-id")
        if trace_id is not None:
            environ["_X_AMZN_TRACE_ID"] = trace_id
        else:
            environ.pop("_X_AMZN_TRACE_ID", None)
        try:
            context = LambdaContext(headers)
            event = unmarshal(body, headers.get("content-type", "application/json"))
            result, content_type = marshal(handler(event, context))
        except Exception as exception:
            report_error(api, f"invocation/{request_id}/error", exception, request_id)
        else:
            sys.stdout.flush()
            api.post(f"invocation/{request_id}/response", result, content_type)
            # Of this invocation nothing may live on into the next.
            del result
        event = context = body = None


def report_error(api, path, exception, request_id=""):
    body, cause = describe_error(exception, request_id)
    log_error(body)
    sys.stdout.flush()
    headers = [("Lambda-Runtime-Function-Error-Type", body["errorType"])]
    xray = encode(cause)
    if request_id and len(xray) < XRAY_CAUSE_BYTES_MAX:
        headers.append(("Lambda-Runtime-Function-XRay-Error-Cause", xray))
    api.post(path, encode(body).encode("utf-8"), "application/json", headers)


# --- the start ------------------------------------------------------------------------------------


def preload():
    """Imports what nearly every function needs. Returns the names of the modules at the top level that came with it."""
    before = set(sys.modules)
    import json
    import traceback

    return {name for name in set(sys.modules) - before if "." not in name}


def become_function(api, preloaded):
    """Waits to be told which function this is, and makes the process what it would be if it had been started for it."""
    directory, variables = api.ask_function()
    # Through putenv, so that what the function starts has it too, and in the order of a new process.
    environ.clear()
    environ.update(variables)
    chdir(directory)
    tzset()
    set_search_path()
    if preloaded & own_modules():
        # A module of the function's is named like one that is loaded already: it must win.
        execv(sys.executable, sys.orig_argv)


def own_modules():
    """Names that modules of the function and its layers have at the top level."""
    names = set()
    for folder in sys.path[:3]:
        try:
            names.update(entry.split(".", 1)[0] for entry in listdir(folder))
        except OSError:
            continue
    return names


def main():
    # Whole lines leave at once: a line that `print` writes in two pieces is one system call.
    sys.stdout.reconfigure(line_buffering=True)
    api = RuntimeApi(environ["AWS_LAMBDA_RUNTIME_API"])
    # Set by the shim in runtimes that it starts ahead of their function.
    if "HEARTH_PREPARED" in environ:
        become_function(api, preload())
    else:
        set_search_path()
    sys.meta_path.insert(0, LoggingHook())
    try:
        handler = load_handler(environ.get("_HANDLER", ""))
    except Exception as exception:
        report_error(api, "init/error", exception)
        sys.exit(1)
    serve(api, handler)


if __name__ == "__main__":
    main()
