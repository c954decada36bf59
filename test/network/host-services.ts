import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";

/** IPv4 addresses of this machine, all of them. */
export const hostAddresses = (): string[] =>
  Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family }) => family === "IPv4")
    .map(({ address }) => address);

/** Whether a TCP connection comes about from here: what the guest is denied must be there. */
export const reachable = (host: string, port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 2_000 });
    const end = (answer: boolean) => (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", end(true)).once("error", end(false)).once("timeout", end(false));
  });

/** Services of this machine, on every address and on the loopback alone, that count who comes. */
export class HostServices implements AsyncDisposable {
  readonly everywhere: number;
  readonly loopback: number;
  readonly udp: number;
  readonly #stack: AsyncDisposableStack;
  readonly #visits: { count: number };

  private constructor(ports: readonly number[], visits: { count: number }, stack: AsyncDisposableStack) {
    [this.everywhere = 0, this.loopback = 0, this.udp = 0] = ports;
    this.#visits = visits;
    this.#stack = stack;
  }

  static async open(): Promise<HostServices> {
    const stack = new AsyncDisposableStack();
    const visits = { count: 0 };
    const ports: number[] = [];
    for (const address of ["::", "127.0.0.1"]) {
      const server = createServer((socket) => {
        visits.count++;
        socket.on("error", () => {}).end("secret");
      });
      server.listen(0, address);
      await once(server, "listening");
      stack.defer(() => void server.close());
      ports.push((server.address() as AddressInfo).port);
    }
    const socket = createSocket("udp4", () => visits.count++);
    socket.bind(0, "0.0.0.0");
    await once(socket, "listening");
    stack.defer(() => void socket.close());
    ports.push(socket.address().port);
    return new HostServices(ports, visits, stack);
  }

  /** How many came, by TCP or UDP, since this was last asked. */
  takeVisits(): number {
    const { count } = this.#visits;
    this.#visits.count = 0;
    return count;
  }

  /** Every address of this machine with every service, as ADDRESS:PORT. */
  get doors(): string[] {
    return hostAddresses().flatMap((address) =>
      [this.everywhere, this.loopback, this.udp].map((port) => `${address}:${port}`),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}
