/** A handler that does what a bad one does: the event's `op` says which. Run by misbehaviour.test.ts. */
import { spawn } from "node:child_process";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");

const dial = () =>
  new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port) }, () => resolve(socket));
    socket.on("error", reject);
  });

/** Status of a request of its own to the Runtime API. */
const post = async (path, body) => {
  const socket = await dial();
  const head = `POST /2018-06-01${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`;
  socket.write(head + body);
  let text = "";
  for await (const chunk of socket) text += chunk;
  return Number(text.slice(9, 12));
};

/** First line of the answer to raw bytes; empty when there is none. */
const say = async (bytes) => {
  const socket = await dial();
  socket.write(Buffer.from(bytes, "latin1"));
  let text = "";
  try {
    for await (const chunk of socket) text += chunk;
  } catch {
    // Reset: what came before it counts.
  }
  return text.split("\r\n")[0];
};

const errorOf = (action) => {
  try {
    action();
    return null;
  } catch (error) {
    return error.code ?? error.message;
  }
};

const write = (path) => errorOf(() => writeFileSync(path, "1"));

const ops = {
  ok: () => "fine",
  throwError: () => {
    throw new RangeError("as told");
  },
  throwText: () => {
    throw "a text";
  },
  throwNull: () => {
    throw null;
  },
  throwLong: ({ length }) => {
    throw new Error("m".repeat(length));
  },
  reject: async () => {
    await sleep(1);
    throw new TypeError("rejected");
  },
  rejectUnseen: async () => {
    void sleep(10).then(() => {
      throw new Error("nobody waits for this");
    });
    await sleep(2_000);
  },
  rejectAfterAnswer: () => {
    setImmediate(() => void Promise.reject(new Error("after the answer")));
    return "answered";
  },
  throwUnseen: async () => {
    setTimeout(() => {
      throw new Error("out of a timer");
    }, 10);
    await sleep(2_000);
  },
  bigint: () => ({ n: 1n }),
  circular: () => {
    const value = {};
    value.self = value;
    return value;
  },
  nothing: () => undefined,
  aFunction: () => () => 1,
  // Two quotes stand around it.
  text: ({ length }) => "x".repeat(length - 2),
  exit: ({ code }) => process.exit(code),
  signal: ({ name }) => {
    process.kill(process.pid, name);
    for (;;);
  },
  loop: () => {
    for (;;);
  },
  allocate: () => {
    const kept = [];
    for (;;) kept.push(Buffer.alloc(8 << 20, 1));
  },
  answerTwice: async (_event, { awsRequestId }) => {
    const path = `/runtime/invocation/${awsRequestId}/response`;
    console.log("statuses", await post(path, '"first"'), await post(path, '"second"'));
    return "third";
  },
  answerOther: async () => post("/runtime/invocation/11111111-1111-1111-1111-111111111111/response", '"not mine"'),
  answerHalf: async (_event, { awsRequestId }) => {
    const socket = await dial();
    const path = `/2018-06-01/runtime/invocation/${awsRequestId}/response`;
    socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"half`);
    await sleep(20);
    socket.destroy();
    await sleep(20);
    return "too late";
  },
  connections: async ({ count }) => {
    const all = [];
    let open = 0;
    for (let n = 0; n < count; n += 1) {
      const socket = await dial();
      open += 1;
      socket.on("close", () => (open -= 1));
      all.push(socket);
    }
    await sleep(100);
    const kept = open;
    for (const socket of all) socket.destroy();
    return kept;
  },
  garbage: async () =>
    Promise.all(
      [
        "\x00\xff garbage\r\n\r\n",
        "GET\r\n\r\n",
        "POST / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
      ].map(say),
    ),
  headersForEver: async () => {
    const socket = await dial();
    let [status, sent] = ["", 0];
    socket.on("data", (data) => (status = String(data).split("\r\n")[0]));
    socket.write("GET / HTTP/1.1\r\n");
    while (!socket.destroyed && sent < 100e6) {
      sent += 1_000;
      socket.write(`X-${sent}: ${"y".repeat(990)}\r\n`);
      if (sent % 50_000 === 0) await sleep(0);
    }
    socket.destroy();
    return { status, sent };
  },
  signals: () => [1, 2, 3].map((pid) => errorOf(() => process.kill(pid, "SIGKILL"))),
  machine: () => ({
    console: write("/dev/console"),
    kmsg: write("/dev/kmsg"),
    memory: write("/dev/mem"),
    drive: write("/dev/ubdb"),
    sysrq: write("/proc/sysrq-trigger"),
    pidMax: write("/proc/sys/kernel/pid_max"),
    oomScore: errorOf(() => writeFileSync("/proc/self/oom_score_adj", "-1000")),
    cgroup: write("/sys/fs/cgroup/cgroup.procs"),
  }),
  shell: ({ script }) =>
    new Promise((resolve) => {
      const shell = spawn("/bin/bash", ["-c", script], { stdio: ["ignore", "pipe", "pipe"] });
      let output = "";
      shell.stdout.on("data", (text) => (output += text));
      shell.stderr.on("data", (text) => (output += text));
      shell.on("close", (code) => resolve({ code, output, year: new Date().getFullYear() }));
    }),
  descriptors: () => {
    const all = [];
    const error = errorOf(() => {
      for (;;) all.push(openSync("/dev/null"));
    });
    for (const fd of all) closeSync(fd);
    return { error, count: all.length };
  },
  background: () => {
    spawn("/bin/bash", ["-c", "while :; do :; done"], { detached: true, stdio: "ignore" }).unref();
    return "left behind";
  },
  flood: ({ ms }) => {
    const block = Buffer.from(`${"f".repeat(199)}\n`.repeat(5_000));
    let written = 0;
    for (const end = Date.now() + ms; Date.now() < end;) written += writeSync(1, block);
    return written;
  },
};

export const handler = async (event, context) => ops[event.op](event, context);
