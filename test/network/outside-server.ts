/**
 * What runs on the test's machine outside: an echo on TCP and UDP port 7, a name server on port 53 that knows
 * `outside.test` by the address given as the argument, and a byte sink and source on ports 9 and 19. Says "ready" once
 * it serves, then one JSON line for everything that reached it: how, from where, what.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";

const [address = ""] = process.argv.slice(2);

const tell = (how: string, from: string | undefined, what: string): void => {
  console.log(JSON.stringify({ how, from, what }));
};

const serveTcp = async (port: number, serve: (socket: Socket) => void): Promise<void> => {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  server.listen(port, "0.0.0.0");
  await once(server, "listening");
};

const serveUdp = async (port: number, answer: (message: Buffer, from: string) => Buffer | null): Promise<void> => {
  const socket = createSocket("udp4", (message, remote) => {
    const reply = answer(message, remote.address);
    if (reply !== null) socket.send(reply, remote.port, remote.address);
  });
  socket.bind(port, "0.0.0.0");
  await once(socket, "listening");
};

const HEADER_BYTES = 12;

/** RFC 1035: the question comes back with one answer, its address, or with NXDOMAIN. What is no question comes back as it is. */
const answerName = (query: Buffer): Buffer => {
  if (query.length <= HEADER_BYTES) return query;
  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  const type = query.readUInt16BE(at + 1);
  const question = query.subarray(HEADER_BYTES, at + 5);
  const known = labels.join(".").toLowerCase() === "outside.test";
  const header = Buffer.alloc(HEADER_BYTES);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(known ? 0x8180 : 0x8183, 2);
  header.writeUInt16BE(1, 4);
  if (!known || type !== 1) return Buffer.concat([header, question]);
  header.writeUInt16BE(1, 6);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split(".").map(Number)]);
  return Buffer.concat([header, question, record]);
};

await serveTcp(7, (socket) => {
  socket.once("data", (first) => {
    tell("tcp", socket.remoteAddress, first.toString("utf8", 0, 100));
  });
  socket.pipe(socket);
});
await serveTcp(9, (socket) => socket.resume());
await serveTcp(19, (socket) => {
  const chunk = Buffer.alloc(256 * 1024, 0x78);
  const fill = (): void => {
    while (!socket.destroyed && socket.write(chunk));
  };
  socket.on("drain", fill);
  fill();
});
await serveUdp(7, (message, from) => {
  tell("udp", from, message.toString("utf8", 0, 100));
  return message;
});
await serveUdp(53, (message, from) => {
  tell("dns", from, "");
  return answerName(message);
});
console.log("ready");
