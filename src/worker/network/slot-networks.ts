import { checked, native, NativeError, NetlinkError, NETLINK_NETFILTER, NETLINK_ROUTE } from "../../vmm/native.ts";
import type { Tap } from "../../vmm/tap.ts";
import { NETWORK_BLOCKS, NETWORKS_MAX, NETWORKS_READY } from "../../wire/limits.ts";
import { blockLinks, ipv4, PAIR_PREFIX, slotAddresses } from "./addresses.ts";
import { switchForwardingOn, uplinkMtu } from "./host.ts";
import { addAddress, raiseLink } from "./links.ts";
import { NetlinkSocket } from "./netlink.ts";
import { addTable } from "./nftables.ts";
import { hostTable } from "./rules.ts";
import { guestNetwork, makeSlotNamespace, type GuestNetwork, type SlotNetwork } from "./slot-network.ts";

export interface NetworkOptions {
  /** IPv4 addresses that guests ask for names. */
  readonly nameServers: readonly string[];
  /** Networks kept ready. */
  readonly ready?: number;
}

/** The kernel still has a link of that name or index, of a network that is on its way out. */
const isTaken = (error: unknown): boolean => error instanceof NativeError && error.code === "EEXIST";

/** The table is another process's: its being made (the message behind the batch's beginning) is refused. Without rights the beginning is. */
const isOwned = (error: unknown): boolean =>
  error instanceof NetlinkError && error.code === "EPERM" && error.sequence > 0;

/** How many numbers are tried for one network. */
const ATTEMPTS_MAX = 64;

/**
 * The networks of one Hearth's slots. Its table on the host takes one of a few blocks of names and addresses, so that
 * several Hearths do not meet. Nothing of all this has an owner but descriptors of this process: whatever ends it, the
 * kernel takes it away.
 */
export class SlotNetworks implements AsyncDisposable {
  readonly mtu: number;
  /** Whether the host did not forward packets before. */
  readonly switchedForwardingOn: boolean;
  readonly block: number;
  readonly #guest: GuestNetwork;
  readonly #route: NetlinkSocket;
  readonly #filter: NetlinkSocket;
  readonly #readyMax: number;
  readonly #ready: { readonly tap: Tap; readonly number: number }[] = [];
  readonly #waiting: PromiseWithResolvers<SlotNetwork>[] = [];
  readonly #taken = new Set<number>();
  #next = 0;
  #isMaking = false;
  #making: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(options: NetworkOptions, block: number, route: NetlinkSocket, filter: NetlinkSocket) {
    this.mtu = uplinkMtu();
    this.switchedForwardingOn = switchForwardingOn();
    this.block = block;
    this.#guest = guestNetwork(options.nameServers);
    this.#route = route;
    this.#filter = filter;
    this.#readyMax = options.ready ?? NETWORKS_READY;
  }

  /** Takes a block and makes the host's rules. Throws with the reason when this host or user cannot. */
  static async open(options: NetworkOptions): Promise<SlotNetworks> {
    using stack = new DisposableStack();
    const open = (protocol: number): NetlinkSocket =>
      stack.use(new NetlinkSocket(checked("Open netlink", native().openNetlink(protocol))));
    const route = open(NETLINK_ROUTE);
    const filter = open(NETLINK_NETFILTER);
    const block = await takeBlock(filter, options.nameServers.map(ipv4));
    const networks = new SlotNetworks(options, block, route, filter);
    stack.move();
    try {
      // The first one shows whether the rest of it works here too.
      networks.#ready.push(await networks.#makeOne());
    } catch (error) {
      await networks[Symbol.asyncDispose]();
      throw error;
    }
    networks.#make();
    return networks;
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
    const ready = this.#ready.shift();
    if (ready !== undefined) {
      this.#make();
      return Promise.resolve(this.#lend(ready.tap, ready.number));
    }
    const waiting = Promise.withResolvers<SlotNetwork>();
    this.#waiting.push(waiting);
    this.#make();
    return waiting.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error("The networks are closed"));
    await this.#making;
    for (const { tap } of this.#ready.splice(0)) tap[Symbol.dispose]();
    this.#route[Symbol.dispose]();
    this.#filter[Symbol.dispose]();
  }

  #lend(tap: Tap, number: number): SlotNetwork {
    return {
      port: tap,
      guest: this.#guest,
      [Symbol.dispose]: () => {
        tap[Symbol.dispose]();
        this.#taken.delete(number);
      },
    };
  }

  /** Makes networks, one after the other, until enough are ready: more at once would only wait for each other in the kernel. */
  #make(): void {
    if (this.#isMaking) return;
    this.#isMaking = true;
    this.#making = this.#makeAll();
  }

  async #makeAll(): Promise<void> {
    try {
      while (!this.#closed && (this.#waiting.length > 0 || this.#ready.length < this.#readyMax)) {
        const made = await this.#makeOne();
        const waiting = this.#waiting.shift();
        if (waiting === undefined) this.#ready.push(made);
        else waiting.resolve(this.#lend(made.tap, made.number));
      }
    } catch (cause) {
      // All who wait hear of it; the next `take` tries again.
      const error = new Error("A network for a slot could not be made", { cause });
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    } finally {
      // In the same moment in which nothing is left to do: a `take` right after it begins anew.
      this.#isMaking = false;
    }
  }

  async #makeOne(): Promise<{ tap: Tap; number: number }> {
    for (let attempt = 1; ; attempt++) {
      if (this.#taken.size >= NETWORKS_MAX)
        throw new Error(`all ${String(NETWORKS_MAX)} networks that a Hearth can have are in use`);
      const number = this.#freeNumber();
      const addresses = slotAddresses(this.block, number);
      this.#taken.add(number);
      try {
        const tap = await makeSlotNamespace(addresses, this.mtu);
        try {
          await this.#route.exchange([
            ...raiseLink(addresses.linkIndex, this.mtu),
            addAddress(addresses.linkIndex, addresses.host, PAIR_PREFIX),
          ]);
          return { tap, number };
        } catch (error) {
          tap[Symbol.dispose]();
          throw error;
        }
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

/** Makes the host's table in the first block that no other Hearth has. */
const takeBlock = async (filter: NetlinkSocket, nameServers: readonly number[]): Promise<number> => {
  for (let block = 0; block < NETWORK_BLOCKS; block++) {
    try {
      await filter.exchange(addTable(hostTable(block, nameServers)));
      return block;
    } catch (error) {
      if (!isTaken(error) && !isOwned(error)) throw error;
    }
  }
  throw new Error(`${String(NETWORK_BLOCKS)} Hearths with networks run on this machine, which is the limit`);
};
