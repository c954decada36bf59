import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Something that reached the machine outside. */
export interface Arrival {
  readonly how: "tcp" | "udp" | "dns";
  readonly from: string;
  readonly what: string;
}

/** Of most clouds' metadata services. */
export const METADATA_ADDRESS = "169.254.169.254";
/**
 * AS112's (RFC 7535): public addresses, to which functions get through by default, and from which nobody misses an answer
 * while a test has them.
 */
const PREFIX = "192.175.48";
const SUBNETS = 64;

export const run = (...command: readonly [string, ...string[]]): string =>
  execFileSync(command[0], command.slice(1), { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

/** Whether this machine lets us make namespaces and links, or the reason why not, for `skip`. */
export const cannotNetwork = (): string | false => {
  if (process.getuid?.() !== 0) return "needs root";
  try {
    run("ip", "tuntap", "help");
  } catch (error) {
    // It prints its help and fails; only a missing program is a reason.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "needs ip (iproute2)";
  }
  return false;
};

/**
 * A machine outside, in a network namespace of its own that a veth pair joins to this one: what a function reaches
 * through NAT.
 */
export class Outside implements AsyncDisposable {
  readonly address: string;
  /** This machine's address on the way there. */
  readonly hostAddress: string;
  readonly arrivals: Arrival[] = [];
  readonly #namespace: string;
  readonly #link: string;
  readonly #also: readonly string[];
  #server: ChildProcess | null = null;

  private constructor(subnet: number, also: readonly string[]) {
    this.address = `${PREFIX}.${4 * subnet + 2}`;
    this.hostAddress = `${PREFIX}.${4 * subnet + 1}`;
    this.#namespace = `hearth-outside-${subnet}`;
    this.#link = `hearthout${subnet}`;
    this.#also = also;
  }

  /** `also`: further addresses that it has, and that the host reaches there; one machine at a time can have each. */
  static async open(also: readonly string[] = []): Promise<Outside> {
    for (let subnet = 0; subnet < SUBNETS; subnet++) {
      const outside = new Outside(subnet, also);
      // The name of the namespace is the lock.
      try {
        run("ip", "netns", "add", outside.#namespace);
      } catch {
        continue;
      }
      try {
        outside.#connect();
        await outside.#serve();
        return outside;
      } catch (error) {
        await outside[Symbol.asyncDispose]();
        throw error;
      }
    }
    throw new Error("no subnet is left for a machine outside");
  }

  #connect(): void {
    const inside = ["-n", this.#namespace];
    run("ip", "link", "add", this.#link, "type", "veth", "peer", "name", "eth0", "netns", this.#namespace);
    run("ip", "address", "add", `${this.hostAddress}/30`, "dev", this.#link);
    run("ip", "link", "set", this.#link, "up");
    run("ip", ...inside, "address", "add", `${this.address}/30`, "dev", "eth0");
    run("ip", ...inside, "link", "set", "eth0", "up");
    run("ip", ...inside, "link", "set", "lo", "up");
    run("ip", ...inside, "route", "add", "default", "via", this.hostAddress);
    for (const address of this.#also) {
      run("ip", ...inside, "address", "add", `${address}/32`, "dev", "lo");
      run("ip", "route", "add", address, "via", this.address);
    }
  }

  async #serve(): Promise<void> {
    const server = spawn(
      "ip",
      [
        "netns",
        "exec",
        this.#namespace,
        process.execPath,
        new URL("outside-server.ts", import.meta.url).pathname,
        this.address,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    this.#server = server;
    const lines = createInterface({ input: server.stdout });
    const [first] = (await once(lines, "line", { signal: AbortSignal.timeout(20_000) })) as [string];
    if (first !== "ready") throw new Error(`the server outside said ${first}`);
    lines.on("line", (line) => this.arrivals.push(JSON.parse(line) as Arrival));
  }

  /** Whether a TCP connection comes about from out there. */
  reaches(address: string, port: number): boolean {
    const script = `require("node:net").connect({ host: "${address}", port: ${port}, timeout: 2000 })
      .on("connect", () => process.exit(0)).on("error", () => process.exit(1)).on("timeout", () => process.exit(1))`;
    try {
      run("ip", "netns", "exec", this.#namespace, process.execPath, "-e", script);
      return true;
    } catch {
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const server = this.#server;
    if (server !== null && server.exitCode === null && server.signalCode === null) {
      const exited = once(server, "exit");
      server.kill("SIGKILL");
      await exited;
    }
    run("ip", "netns", "delete", this.#namespace);
    // The pair goes with the namespace, but not before the kernel gets to it; its route goes with the link.
    try {
      run("ip", "link", "delete", this.#link);
    } catch {
      // It was there no more.
    }
  }
}
