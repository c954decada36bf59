import { attribute, be16, be32, be64, Flag, nested, text, u32, type NetlinkMessage } from "./netlink.ts";

/*
 * nftables over nfnetlink: tables, chains and rules of the `ip` family. Numbers from Linux's nf_tables.h, nfnetlink.h
 * and nf_conntrack_common.h. A rule is a list of expressions, each of which goes on to the next or ends the rule; a
 * verdict ends it for good. Values are compared in register 1.
 */

const SUBSYSTEM_NFTABLES = 10;
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const Message = { NewTable: 0, NewChain: 3, NewRule: 6, NewSet: 9, NewElements: 12 } as const;
const FAMILY_IPV4 = 2;
const REGISTER = 1;
const VERDICT_REGISTER = 0;
const LIST_ELEMENT = 1;

/** NFT_TABLE_F_OWNER: the table goes with the socket that made it, and nobody else can change it. */
const TABLE_OWNED = 2;

export const Hook = { Prerouting: 0, Input: 1, Forward: 2, Output: 3, Postrouting: 4 } as const;
/** Of chains at a hook: before or after what others do there. */
export const Priority = { Raw: -300, Mangle: -150, Filter: 0, SourceNat: 100 } as const;

export interface Chain {
  readonly name: string;
  readonly type: "filter" | "nat";
  readonly hook: number;
  readonly priority: number;
  readonly policy: "accept" | "drop";
  readonly rules: readonly Rule[];
}

/** Addresses by which a rule decides in one look-up, however many there are. */
export interface AddressSet {
  readonly name: string;
  /** In order and apart from each other; both ends belong to it. */
  readonly intervals: readonly { readonly first: number; readonly last: number }[];
}

export interface Table {
  readonly name: string;
  /** Removed by the kernel when the socket closes that made it. */
  readonly owned: boolean;
  readonly sets: readonly AddressSet[];
  readonly chains: readonly Chain[];
}

/** A part of a rule: expressions, encoded. */
export type Rule = readonly Buffer[];

/** A rule out of its parts, which must all apply. */
export const rule = (...parts: readonly Rule[]): Rule => parts.flat();

const expression = (name: string, ...data: readonly Buffer[]): Buffer =>
  nested(LIST_ELEMENT, attribute(1, text(name)), nested(2, ...data));

const value = (type: number, bytes: Buffer): Buffer => nested(type, attribute(1, bytes));

const compare = (operation: "eq" | "neq", bytes: Buffer): Buffer =>
  expression("cmp", attribute(1, be32(REGISTER)), attribute(2, be32(operation === "eq" ? 0 : 1)), value(3, bytes));

const mask = (bits: Buffer): Buffer =>
  expression(
    "bitwise",
    attribute(1, be32(REGISTER)),
    attribute(2, be32(REGISTER)),
    attribute(3, be32(bits.length)),
    value(4, bits),
    value(5, Buffer.alloc(bits.length)),
  );

const payload = (base: "network" | "transport", offset: number, bytes: number): Buffer =>
  expression(
    "payload",
    attribute(1, be32(REGISTER)),
    attribute(2, be32(base === "network" ? 1 : 2)),
    attribute(3, be32(offset)),
    attribute(4, be32(bytes)),
  );

const META = { iifname: 6, oifname: 7, l4proto: 16 } as const;
const meta = (key: keyof typeof META): Buffer =>
  expression("meta", attribute(1, be32(REGISTER)), attribute(2, be32(META[key])));

const INTERFACE_NAME_BYTES = 16;
/** Offsets in the IPv4 header. */
const ADDRESS = { source: 12, destination: 16 } as const;

/** A name as it is, or with a final `*` any that begins so. */
const named = (key: "iifname" | "oifname", operation: "eq" | "neq", name: string): Rule => {
  const bytes = name.endsWith("*")
    ? Buffer.from(name.slice(0, -1))
    : Buffer.concat([Buffer.from(name)], INTERFACE_NAME_BYTES);
  return [meta(key), compare(operation, bytes)];
};

export const cameIn = (name: string): Rule => named("iifname", "eq", name);
export const cameInElsewhere = (name: string): Rule => named("iifname", "neq", name);
export const goesOut = (name: string): Rule => named("oifname", "eq", name);
export const goesOutElsewhere = (name: string): Rule => named("oifname", "neq", name);

/** The address lies in `network`/`prefix`. */
export const addressIn = (which: keyof typeof ADDRESS, network: number, prefix: number): Rule => [
  payload("network", ADDRESS[which], 4),
  ...(prefix === 32 ? [] : [mask(be32(prefix === 0 ? 0 : -1 << (32 - prefix)))]),
  compare("eq", be32(network)),
];

export const addressIsNot = (which: keyof typeof ADDRESS, address: number): Rule => [
  payload("network", ADDRESS[which], 4),
  compare("neq", be32(address)),
];

/** The address is in a set of the same table. */
export const addressInSet = (which: keyof typeof ADDRESS, { name }: AddressSet): Rule => [
  payload("network", ADDRESS[which], 4),
  expression("lookup", attribute(1, text(name)), attribute(2, be32(REGISTER))),
];

export const ofProtocol = (protocol: number): Rule => [meta("l4proto"), compare("eq", Buffer.of(protocol))];

/** IP protocol and destination port. */
export const destinedTo = (protocol: number, port: number): Rule => [
  ...ofProtocol(protocol),
  payload("transport", 2, 2),
  compare("eq", be16(port)),
];

/** Bits of a connection's state; the register holds exactly one. `related`: belongs to another one, such as an error. */
const STATE = { established: 2, related: 4, new: 8 } as const;

export const inState = (state: keyof typeof STATE): Rule => [
  expression("ct", attribute(1, be32(REGISTER)), attribute(2, be32(0))),
  mask(u32(STATE[state])),
  compare("neq", u32(0)),
];

const FIB_SOURCE = 1;
const FIB_DESTINATION = 2;
const FIB_INTERFACE_IN = 8;
/** The result is only whether there is one. */
const FIB_PRESENT = 32;
const FIB_RESULT_INTERFACE = 1;
const FIB_RESULT_TYPE = 3;
const ROUTE_UNICAST = 1;

const fib = (result: number, flags: number): Buffer =>
  expression("fib", attribute(1, be32(REGISTER)), attribute(2, be32(result)), attribute(3, be32(flags)));

/** No answer to the source address would leave by the interface that the packet came in by: it is forged. */
export const sourceIsForged: Rule = [
  fib(FIB_RESULT_INTERFACE, FIB_SOURCE | FIB_INTERFACE_IN | FIB_PRESENT),
  compare("eq", u32(0)),
];

/** The destination is this machine itself, or everyone on a network, or nobody. */
export const destinationIsNotUnicast: Rule = [
  fib(FIB_RESULT_TYPE, FIB_DESTINATION),
  compare("neq", u32(ROUTE_UNICAST)),
];

const LIMIT_UNIT_SECOND = 1;

/** More new packets than `perSecond`, after a first `burst`. */
export const overRate = (perSecond: number, burst: number): Rule => [
  expression(
    "limit",
    attribute(1, be64(perSecond)),
    attribute(2, be64(LIMIT_UNIT_SECOND)),
    attribute(3, be32(burst)),
    attribute(4, be32(0)),
    attribute(5, be32(1)),
  ),
];

/** Over so many connections at once. */
export const overCount = (count: number): Rule => [
  expression("connlimit", attribute(1, be32(count)), attribute(2, be32(1))),
];

const verdict = (code: number): Rule => [
  expression("immediate", attribute(1, be32(VERDICT_REGISTER)), nested(2, nested(2, attribute(1, be32(code))))),
];

/** Ends the packet. */
export const drop: Rule = verdict(0);
/** Ends the chain; the next hook goes on. */
export const accept: Rule = verdict(1);
/** Source NAT to the address of the interface that the packet leaves by. */
export const masquerade: Rule = [expression("masq")];

/** struct nfgenmsg */
const header = (family: number, resource: number): Buffer => Buffer.concat([Buffer.of(family, 0), be16(resource)]);

const batch = (type: number): NetlinkMessage => ({
  type,
  flags: 0,
  payload: [header(0, SUBSYSTEM_NFTABLES)],
  acknowledged: false,
});

const make = (type: number, flags: number, ...attributes: readonly Buffer[]): NetlinkMessage => ({
  type: (SUBSYSTEM_NFTABLES << 8) | type,
  flags: Flag.Create | flags,
  payload: [header(FAMILY_IPV4, 0), ...attributes],
  acknowledged: false,
});

const chainMessages = (table: string, chain: Chain): NetlinkMessage[] => [
  make(
    Message.NewChain,
    0,
    attribute(1, text(table)),
    attribute(3, text(chain.name)),
    nested(4, attribute(1, be32(chain.hook)), attribute(2, be32(chain.priority))),
    attribute(5, be32(chain.policy === "accept" ? 1 : 0)),
    attribute(7, text(chain.type)),
  ),
  ...chain.rules.map((expressions) =>
    make(
      Message.NewRule,
      Flag.Append,
      attribute(1, text(table)),
      attribute(2, text(chain.name)),
      nested(4, ...expressions),
    ),
  ),
];

/** NFT_SET_CONSTANT and NFT_SET_INTERVAL: not to be changed; an element begins or ends an interval. */
const SET_FLAGS = 2 | 4;
const INTERVAL_END = 1;
/** nft(8)'s number for addresses, by which it writes them as such; nothing to the kernel. */
const TYPE_IPV4_ADDRESS = 7;
const ADDRESS_BYTES = 4;
const ADDRESS_MAX = 0xffff_ffff;

const element = (address: number, ...flags: readonly Buffer[]): Buffer =>
  nested(LIST_ELEMENT, value(1, be32(address)), ...flags);

const setMessages = (table: string, { name, intervals }: AddressSet, id: number): NetlinkMessage[] => {
  const elements = intervals.flatMap(({ first, last }) => [
    element(first),
    // What follows an interval ends it; nothing follows the last address of all.
    ...(last === ADDRESS_MAX ? [] : [element(last + 1, attribute(3, be32(INTERVAL_END)))]),
  ]);
  return [
    make(
      Message.NewSet,
      Flag.Exclusive,
      attribute(1, text(table)),
      attribute(2, text(name)),
      attribute(3, be32(SET_FLAGS)),
      attribute(4, be32(TYPE_IPV4_ADDRESS)),
      attribute(5, be32(ADDRESS_BYTES)),
      attribute(10, be32(id)),
    ),
    make(Message.NewElements, 0, attribute(1, text(table)), attribute(2, text(name)), nested(3, ...elements)),
  ];
};

/** All of a table, made at once or not at all. Fails with EEXIST when there is one of that name. */
export const addTable = ({ name, owned, sets, chains }: Table): NetlinkMessage[] => {
  const table = make(
    Message.NewTable,
    Flag.Exclusive,
    attribute(1, text(name)),
    attribute(2, be32(owned ? TABLE_OWNED : 0)),
  );
  const messages = [
    table,
    ...sets.flatMap((set, at) => setMessages(name, set, at + 1)),
    ...chains.flatMap((chain) => chainMessages(name, chain)),
  ];
  // That the last one is acknowledged says that all was done.
  const last = messages.pop() ?? table;
  return [batch(BATCH_BEGIN), ...messages, { ...last, acknowledged: true }, batch(BATCH_END)];
};
