import { attribute, be32, Flag, nested, text, u32, u8, type NetlinkMessage } from "./netlink.ts";

/* Links and addresses, rtnetlink(7). Numbers from Linux's rtnetlink.h, if_link.h, if_addr.h, veth.h and ip.h. */

const RTM_NEWLINK = 16;
const RTM_NEWADDR = 20;
const RTM_NEWROUTE = 24;
const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;
const Link = { Name: 3, Mtu: 4, LinkInfo: 18, NamespacePid: 19, AfSpec: 26 } as const;
const LINK_INFO_KIND = 1;
const LINK_INFO_DATA = 2;
const VETH_PEER = 1;
const INET_CONF = 1;
const CONF_FORWARDING = 1;
const INET6_ADDRESS_GENERATION = 8;
const GENERATE_NONE = 1;
const ADDRESS = 1;
const ADDRESS_LOCAL = 2;
const ROUTE_OIF = 4;
const ROUTE_GATEWAY = 5;
const ROUTE_TABLE_MAIN = 254;
const ROUTE_PROTOCOL_STATIC = 4;
const SCOPE_UNIVERSE = 0;
const ROUTE_UNICAST = 1;

const message = (type: number, flags: number, payload: readonly Buffer[]): NetlinkMessage => ({
  type,
  flags,
  payload,
  acknowledged: true,
});

/** struct ifinfomsg */
const linkHeader = (index: number, up: boolean): Buffer =>
  Buffer.concat([u32(AF_UNSPEC), u32(index), u32(up ? IFF_UP : 0), u32(up ? IFF_UP : 0)]);

/** What a veth pair is made of; `peer` is put into the namespace of process `pid`. */
export interface VethPair {
  readonly name: string;
  readonly index: number;
  readonly mtu: number;
  readonly peer: { readonly name: string; readonly index: number; readonly pid: number };
}

/** A veth pair with both indices chosen by us: nobody need ask for them afterwards. */
export const addVethPair = ({ name, index, mtu, peer }: VethPair): NetlinkMessage =>
  message(RTM_NEWLINK, Flag.Create | Flag.Exclusive, [
    linkHeader(index, false),
    attribute(Link.Name, text(name)),
    attribute(Link.Mtu, u32(mtu)),
    nested(
      Link.LinkInfo,
      attribute(LINK_INFO_KIND, text("veth")),
      nested(
        LINK_INFO_DATA,
        nested(
          VETH_PEER,
          linkHeader(peer.index, false),
          attribute(Link.Name, text(peer.name)),
          attribute(Link.Mtu, u32(mtu)),
          attribute(Link.NamespacePid, u32(peer.pid)),
        ),
      ),
    ),
  ]);

/** Brings a link up that forwards IPv4 and has no IPv6 address of its own making. */
export const raiseLink = (index: number, mtu: number): NetlinkMessage[] => [
  // Before it is up: that is when the address would be made.
  message(RTM_NEWLINK, 0, [
    linkHeader(index, false),
    attribute(Link.Mtu, u32(mtu)),
    nested(
      Link.AfSpec,
      nested(AF_INET, nested(INET_CONF, attribute(CONF_FORWARDING, u32(1)))),
      nested(AF_INET6, attribute(INET6_ADDRESS_GENERATION, u8(GENERATE_NONE))),
    ),
  ]),
  message(RTM_NEWLINK, 0, [linkHeader(index, true)]),
];

/** Gives a link an IPv4 address (as a number) with a prefix. */
export const addAddress = (index: number, address: number, prefix: number): NetlinkMessage =>
  message(RTM_NEWADDR, Flag.Create | Flag.Exclusive, [
    Buffer.of(AF_INET, prefix, 0, SCOPE_UNIVERSE),
    u32(index),
    attribute(ADDRESS_LOCAL, be32(address)),
    attribute(ADDRESS, be32(address)),
  ]);

/** The route to everywhere. */
export const addDefaultRoute = (index: number, gateway: number): NetlinkMessage =>
  message(RTM_NEWROUTE, Flag.Create | Flag.Exclusive, [
    Buffer.of(AF_INET, 0, 0, 0, ROUTE_TABLE_MAIN, ROUTE_PROTOCOL_STATIC, SCOPE_UNIVERSE, ROUTE_UNICAST),
    u32(0),
    attribute(ROUTE_OIF, u32(index)),
    attribute(ROUTE_GATEWAY, be32(gateway)),
  ]);
