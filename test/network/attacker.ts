import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import type { MicroVm } from "../../src/vmm/microvm.ts";
import { SlotNetworks, type NetworkOptions } from "../../src/worker/network/slot-networks.ts";
import type { SlotNetwork } from "../../src/worker/network/slot-network.ts";
import { compile } from "../vmm/guest.ts";
import { readLine, tell } from "../vmm/stream.ts";

/** A guest whose PID 1 is the tests' own, with all rights in there. */
export class Attacker {
  readonly vm: MicroVm;
  readonly network: SlotNetwork;
  readonly #stream: Duplex;

  constructor(vm: MicroVm, network: SlotNetwork, stream: Duplex) {
    this.vm = vm;
    this.network = network;
    this.#stream = stream;
  }

  /** Gives a command of attacker.c; resolves to its answer. */
  async do(command: string): Promise<string> {
    tell(this.#stream, command);
    return readLine(this.#stream);
  }
}

/** Guests with networks, as slots have them: real ones, without a Hearth around them. */
export class AttackerHost implements AsyncDisposable {
  readonly networks: SlotNetworks;
  readonly #directory: string;
  readonly #image: string;
  readonly #hypervisor: UmlHypervisor;
  readonly #guests: Attacker[] = [];

  private constructor(networks: SlotNetworks) {
    this.networks = networks;
    this.#directory = mkdtempSync(join(tmpdir(), "ha-"));
    chmodSync(this.#directory, 0o755);
    const root = join(this.#directory, "root");
    for (const name of ["dev", "proc"]) mkdirSync(join(root, name), { recursive: true });
    compile(new URL("attacker.c", import.meta.url).pathname, join(root, "init"), ["-static"]);
    this.#image = join(this.#directory, "root.erofs");
    execFileSync("mkfs.erofs", ["--quiet", this.#image, root]);
    this.#hypervisor = new UmlHypervisor({ runDir: join(this.#directory, "r") });
  }

  static async open(options: Partial<NetworkOptions> = {}): Promise<AttackerHost> {
    return new AttackerHost(await SlotNetworks.open({ nameServers: [], ready: 2, ...options }));
  }

  async guest(): Promise<Attacker> {
    const network = await this.networks.take();
    const { address, gateway } = network.guest;
    const vm = await this.#hypervisor.spawn({
      id: `attacker-${randomUUID().slice(0, 8)}`,
      memoryMib: 64,
      drives: [{ path: this.#image, readOnly: true }],
      init: "/init",
      initArguments: [address.replace(/\/.*/, ""), gateway],
      network: { mtu: this.networks.mtu },
    });
    vm.attachNetwork(network.port);
    const { promise, resolve } = Promise.withResolvers<Duplex>();
    vm.listen(1024, resolve);
    const stream = await Promise.race([
      promise,
      vm.exited.then(({ detail }): never => {
        throw new Error(`the guest ended early: ${detail}`);
      }),
    ]);
    const guest = new Attacker(vm, network, stream);
    this.#guests.push(guest);
    if ((await readLine(stream)) !== "up") throw new Error("the guest did not come up");
    return guest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { vm, network } of this.#guests.splice(0)) {
      await vm.kill("the test is over");
      network[Symbol.dispose]();
    }
    await this.networks[Symbol.asyncDispose]();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
