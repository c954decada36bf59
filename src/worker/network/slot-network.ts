import { MTU_DEFAULT } from "../../vmm/devices/net.ts";
import type { FramePort } from "../../vmm/devices/frames.ts";
import { makeNetwork } from "../../vmm/native.ts";
import { Tap } from "../../vmm/tap.ts";
import { GUEST_ADDRESS, GUEST_GATEWAY, GUEST_PREFIX, ipv4Text, PAIR_PREFIX, type SlotAddresses } from "./addresses.ts";
import { addAddress, addDefaultRoute, addVethPair, raiseLink } from "./links.ts";
import { netlinkRequest } from "./netlink.ts";
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

/** The same for every slot. */
const RULES = netlinkRequest(addTable(slotTable()));

/**
 * Makes a namespace with a tap, a veth pair to the host, addresses, routes and rules. Resolves to the tap. Rejects with
 * a `NetlinkError`, with nothing left.
 */
export const makeSlotNetwork = async (addresses: SlotAddresses, mtu: number): Promise<Tap> => {
  const { linkName, linkIndex, host, slot } = addresses;
  const tap = await makeNetwork({
    tapName: TAP,
    tapIndex: TAP_INDEX,
    rules: RULES,
    links: netlinkRequest([
      addVethPair({
        name: UPLINK,
        index: UPLINK_INDEX,
        mtu,
        peer: { name: linkName, index: linkIndex, pid: process.pid },
      }),
      ...raiseLink(TAP_INDEX, mtu),
      addAddress(TAP_INDEX, GUEST_GATEWAY, GUEST_PREFIX),
      ...raiseLink(UPLINK_INDEX, mtu),
      addAddress(UPLINK_INDEX, slot, PAIR_PREFIX),
      addDefaultRoute(UPLINK_INDEX, host),
    ]),
    hostLinks: netlinkRequest([...raiseLink(linkIndex, mtu), addAddress(linkIndex, host, PAIR_PREFIX)]),
  });
  return new Tap(tap);
};

/** Tries all but the link to the host. Rejects with the reason why slots cannot have networks here. */
export const tryNetwork = async (): Promise<void> => {
  const links = netlinkRequest(raiseLink(TAP_INDEX, MTU_DEFAULT));
  new Tap(await makeNetwork({ tapName: TAP, tapIndex: TAP_INDEX, rules: RULES, links, hostLinks: null }))[
    Symbol.dispose
  ]();
};
