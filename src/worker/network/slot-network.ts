import type { FramePort } from "../../vmm/devices/frames.ts";
import { makeNetwork } from "../../vmm/native.ts";
import { Tap } from "../../vmm/tap.ts";
import { GUEST_ADDRESS, GUEST_GATEWAY, GUEST_PREFIX, ipv4Text, PAIR_PREFIX, type SlotAddresses } from "./addresses.ts";
import { addAddress, addDefaultRoute, addVethPair, raiseLink } from "./links.ts";
import { NetlinkSocket } from "./netlink.ts";
import { addTable } from "./nftables.ts";
import { slotTable, TAP, UPLINK } from "./rules.ts";

/** Indices in a slot's namespace, clear of those that the kernel gives by itself. */
const TAP_INDEX = 1000;
const UPLINK_INDEX = 1001;

/** What a guest needs to know of its network. Every guest is told the same. */
export interface GuestNetwork {
  /** Its address, with the prefix: `169.254.76.2/30`. */
  readonly address: string;
  readonly gateway: string;
  readonly nameServers: readonly string[];
}

export const guestNetwork = (nameServers: readonly string[]): GuestNetwork => ({
  address: `${ipv4Text(GUEST_ADDRESS)}/${String(GUEST_PREFIX)}`,
  gateway: ipv4Text(GUEST_GATEWAY),
  nameServers,
});

/** One slot's network, all of it kept by the tap's descriptor. Disposing gives it back to the kernel, in its own time. */
export interface SlotNetwork extends Disposable {
  readonly port: FramePort;
  readonly guest: GuestNetwork;
}

/**
 * Makes a namespace with a tap, a veth pair to the host, addresses, routes and rules. Resolves to the tap once the
 * namespace is whole; the host's end of the pair is still to be raised. Rejects with a `NativeError`, with nothing left.
 */
export const makeSlotNamespace = async (addresses: SlotAddresses, mtu: number): Promise<Tap> => {
  const made = await makeNetwork(TAP, TAP_INDEX);
  using stack = new DisposableStack();
  const tap = stack.use(new Tap(made.tap));
  using route = new NetlinkSocket(made.route);
  using filter = new NetlinkSocket(made.filter);
  // The rules first: there is no moment at which a link is up without them.
  await filter.exchange(addTable(slotTable()));
  await route.exchange([
    addVethPair({
      name: UPLINK,
      index: UPLINK_INDEX,
      mtu,
      peer: { name: addresses.linkName, index: addresses.linkIndex, pid: process.pid },
    }),
    ...raiseLink(TAP_INDEX, mtu),
    addAddress(TAP_INDEX, GUEST_GATEWAY, GUEST_PREFIX),
    ...raiseLink(UPLINK_INDEX, mtu),
    addAddress(UPLINK_INDEX, addresses.slot, PAIR_PREFIX),
    addDefaultRoute(UPLINK_INDEX, addresses.host),
  ]);
  stack.move();
  return tap;
};
