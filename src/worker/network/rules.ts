import { NETWORK_FLOWS_MAX, NETWORK_NEW_FLOWS_BURST, NETWORK_NEW_FLOWS_PER_S_MAX } from "../../wire/limits.ts";
import { blockLinks, blockNetwork, GUEST_ADDRESS, LINK_PREFIX } from "./addresses.ts";
import type { AddressRange } from "./address-range.ts";
import { closedIntervals } from "./closed-ranges.ts";
import {
  accept,
  addressIn,
  addressInSet,
  addressIsNot,
  cameIn,
  cameInElsewhere,
  destinationIsNotUnicast,
  destinedTo,
  drop,
  goesOut,
  goesOutElsewhere,
  Hook,
  inState,
  masquerade,
  ofProtocol,
  overCount,
  overRate,
  Priority,
  rule,
  sourceIsForged,
  type Rule,
  type Table,
} from "./nftables.ts";

/** Links in a slot's namespace: to the guest, and to the host. */
export const TAP = "tap0";
export const UPLINK = "up";

const ICMP = 1;
const TCP = 6;
const UDP = 17;
const DNS_PORT = 53;

/**
 * What holds in a slot's namespace: the guest speaks as itself only, nobody opens a connection to it, and to the
 * namespace itself it has nothing to say. What leaves gets the slot's address.
 */
export const slotTable = (): Table => ({
  name: "hearth",
  owned: false,
  sets: [],
  chains: [
    {
      name: "from-guest",
      type: "filter",
      hook: Hook.Prerouting,
      priority: Priority.Raw,
      policy: "accept",
      rules: [rule(cameIn(TAP), addressIsNot("source", GUEST_ADDRESS), drop)],
    },
    { name: "to-namespace", type: "filter", hook: Hook.Input, priority: Priority.Filter, policy: "drop", rules: [] },
    {
      name: "through",
      type: "filter",
      hook: Hook.Forward,
      priority: Priority.Filter,
      policy: "drop",
      rules: [
        rule(inState("established"), accept),
        rule(inState("related"), ofProtocol(ICMP), accept),
        rule(cameIn(TAP), inState("new"), overRate(NETWORK_NEW_FLOWS_PER_S_MAX, NETWORK_NEW_FLOWS_BURST), drop),
        rule(cameIn(TAP), inState("new"), overCount(NETWORK_FLOWS_MAX), drop),
        rule(cameIn(TAP), goesOut(UPLINK), inState("new"), accept),
      ],
    },
    {
      name: "to-slot-address",
      type: "nat",
      hook: Hook.Postrouting,
      priority: Priority.SourceNat,
      policy: "accept",
      rules: [rule(goesOut(UPLINK), masquerade)],
    },
  ],
});

/** What guests reach beyond the open world. */
export interface Reach {
  /** Addresses whose port 53 is open, wherever they are. */
  readonly nameServers: readonly number[];
  /** Ranges that are open though they are closed by default (closed-ranges.ts). */
  readonly opened: readonly AddressRange[];
}

/** DNS to one of the name servers, wherever they are: on this machine too. */
const toNameServers = (nameServers: readonly number[], ...before: readonly Rule[]): Rule[] =>
  nameServers.flatMap((server) =>
    [UDP, TCP].map((protocol) =>
      rule(...before, addressIn("destination", server, 32), destinedTo(protocol, DNS_PORT), accept),
    ),
  );

/** The table of a Hearth on the host; its name takes the block, and its owner keeps it from everyone else's commands. */
export const hostTableName = (block: number): string => `hearth${String(block)}`;

/**
 * What holds on the host for all slots of a Hearth. The first chain asks nothing but the packet, whatever it claims to
 * belong to, and is before any redirection of the host's own: a port published on the host is as closed as one that
 * listens there.
 */
export const hostTable = (block: number, { nameServers, opened }: Reach): Table => {
  const guests = blockLinks(block);
  const closed = { name: "closed", intervals: closedIntervals(opened) };
  const { network, prefix } = blockNetwork(block);
  return {
    name: hostTableName(block),
    owned: true,
    sets: [closed],
    chains: [
      {
        name: "from-guests",
        type: "filter",
        hook: Hook.Prerouting,
        priority: Priority.Mangle,
        policy: "accept",
        rules: [
          rule(cameInElsewhere(guests), accept),
          rule(sourceIsForged, drop),
          ...toNameServers(nameServers),
          rule(destinationIsNotUnicast, drop),
          rule(addressInSet("destination", closed), drop),
        ],
      },
      {
        name: "to-host",
        type: "filter",
        hook: Hook.Input,
        priority: Priority.Filter,
        policy: "accept",
        rules: [...toNameServers(nameServers, cameIn(guests)), rule(cameIn(guests), drop)],
      },
      {
        name: "through-host",
        type: "filter",
        hook: Hook.Forward,
        priority: Priority.Filter,
        policy: "accept",
        rules: [
          rule(cameIn(guests), goesOut(`${LINK_PREFIX}*`), drop),
          rule(goesOut(guests), inState("established"), accept),
          rule(goesOut(guests), inState("related"), ofProtocol(ICMP), accept),
          rule(goesOut(guests), drop),
        ],
      },
      {
        name: "to-world",
        type: "nat",
        hook: Hook.Postrouting,
        priority: Priority.SourceNat,
        policy: "accept",
        rules: [rule(addressIn("source", network, prefix), goesOutElsewhere(`${LINK_PREFIX}*`), masquerade)],
      },
    ],
  };
};
