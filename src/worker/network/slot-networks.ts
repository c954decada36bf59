import { NativeError } from "../../vmm/native.ts";
import type { Tap } from "../../vmm/tap.ts";
import { NETWORKS_MAKING_MAX, NETWORKS_MAX, NETWORKS_READY } from "../../wire/limits.ts";
import { blockLinks, ipv4, slotAddresses } from "./addresses.ts";
import type { AddressRange } from "./address-range.ts";
import { HostTable } from "./host-table.ts";
import { switchForwardingOn, uplinkMtu } from "./host.ts";
import { guestNetwork, makeSlotNetwork, type GuestNetwork, type SlotNetwork } from "./slot-network.ts";

export interface NetworkOptions {
  /** IPv4 addresses that guests ask for names. */
  readonly nameServers: readonly string[];
  /** Ranges that guests reach though they are closed by default; none when left out. */
  readonly opened?: readonly AddressRange[];
  /** Networks kept ready. */
  readonly ready?: number;
}

interface Made {
  readonly tap: Tap;
  readonly number: number;
}

/** The kernel still has a link of that name or index, of a network that is on its way out. */
const isTaken = (error: unknown): boolean => error instanceof NativeError && error.code === "EEXIST";

/** How many numbers are tried for one network. */
const ATTEMPTS_MAX = 64;

/**
 * The networks of one Hearth's slots, made ahead. Nothing of all this has an owner but descriptors of this process:
 * whatever ends it, the kernel takes it away.
 */
export class SlotNetworks implements AsyncDisposable {
  readonly mtu: number;
  readonly #guest: GuestNetwork;
  readonly #table: HostTable;
  readonly #readyMax: number;
  readonly #ready: Made[] = [];
  readonly #waiting: PromiseWithResolvers<SlotNetwork>[] = [];
  readonly #taken = new Set<number>();
  readonly #makers = new Set<Promise<void>>();
  #next = 0;
  #switchedForwardingOn = false;
  #closed = false;

  private constructor(options: NetworkOptions, table: HostTable) {
    this.mtu = uplinkMtu();
    this.#guest = guestNetwork(options.nameServers);
    this.#table = table;
    this.#readyMax = options.ready ?? NETWORKS_READY;
  }

  /** Takes a block of names and addresses and makes a first network. Rejects with the reason when this host or user cannot. */
  static async open(options: NetworkOptions): Promise<SlotNetworks> {
    using stack = new DisposableStack();
    const table = stack.use(
      HostTable.take({ nameServers: options.nameServers.map(ipv4), opened: options.opened ?? [] }),
    );
    const networks = new SlotNetworks(options, table);
    const first = await networks.#makeOne();
    stack.defer(() => first.tap[Symbol.dispose]());
    networks.#switchedForwardingOn = switchForwardingOn();
    networks.#ready.push(first);
    stack.move();
    networks.#make();
    return networks;
  }

  /** Whether the host did not forward packets before. */
  get switchedForwardingOn(): boolean {
    return this.#switchedForwardingOn;
  }

  /** The number of the block. */
  get block(): number {
    return this.#table.block;
  }

  /** What the host's ends of the networks are called, as nftables writes it: `hth0-*`. */
  get links(): string {
    return blockLinks(this.block);
  }

  /** Networks that stand ready. */
  get ready(): number {
    return this.#ready.length;
  }

  /** A network for one slot, the caller's from here on. Rejects with the reason when there is none to be had. */
  take(): Promise<SlotNetwork> {
    if (this.#closed) return Promise.reject(new Error("The networks are closed"));
    const waiting = Promise.withResolvers<SlotNetwork>();
    const ready = this.#ready.shift();
    if (ready === undefined) this.#waiting.push(waiting);
    else waiting.resolve(this.#lend(ready));
    this.#make();
    return waiting.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error("The networks are closed"));
    await Promise.all(this.#makers);
    for (const { tap } of this.#ready.splice(0)) tap[Symbol.dispose]();
    this.#table[Symbol.dispose]();
  }

  #lend({ tap, number }: Made): SlotNetwork {
    return {
      port: tap,
      guest: this.#guest,
      [Symbol.dispose]: () => {
        tap[Symbol.dispose]();
        this.#taken.delete(number);
      },
    };
  }

  /** Makes what is missing, a few at a time: they take threads from the pool that others need too. */
  #make(): void {
    const missing = this.#waiting.length + Math.max(0, this.#readyMax - this.#ready.length);
    while (!this.#closed && this.#makers.size < Math.min(missing, NETWORKS_MAKING_MAX)) {
      const maker: Promise<void> = this.#makeOne().then(
        (made) => {
          this.#makers.delete(maker);
          const waiting = this.#waiting.shift();
          if (waiting === undefined) this.#ready.push(made);
          else waiting.resolve(this.#lend(made));
          this.#make();
        },
        (cause: unknown) => {
          this.#makers.delete(maker);
          // All who wait hear of it; the next `take` tries again.
          const error = new Error("A network for a slot could not be made", { cause });
          for (const { reject } of this.#waiting.splice(0)) reject(error);
        },
      );
      this.#makers.add(maker);
    }
  }

  async #makeOne(): Promise<Made> {
    for (let attempt = 1; ; attempt++) {
      if (this.#taken.size >= NETWORKS_MAX)
        throw new Error(`all ${String(NETWORKS_MAX)} networks that a Hearth can have are in use`);
      const number = this.#freeNumber();
      this.#taken.add(number);
      try {
        return { number, tap: await makeSlotNetwork(slotAddresses(this.block, number), this.mtu) };
      } catch (error) {
        this.#taken.delete(number);
        if (!isTaken(error) || this.#closed || attempt === ATTEMPTS_MAX) throw error;
      }
    }
  }

  /** The next number in turn: one that was given back is long gone from the kernel when its turn comes. */
  #freeNumber(): number {
    do this.#next = (this.#next + 1) % NETWORKS_MAX;
    while (this.#taken.has(this.#next));
    return this.#next;
  }
}
