import { isIPv4 } from "node:net";
import { NETWORK_BLOCKS, NETWORKS_MAX } from "../../wire/limits.ts";

/** An IPv4 address as a number. Throws when the text is none. */
export const ipv4 = (text: string): number => {
  if (!isIPv4(text)) throw new Error(`"${text}" is no IPv4 address`);
  return text.split(".").reduce((value, byte) => value * 256 + Number(byte), 0);
};

export const ipv4Text = (address: number): string =>
  [24, 16, 8, 0].map((shift) => String((address >>> shift) & 0xff)).join(".");

/**
 * Inside, every guest has the same addresses (Lambda's are in the same link-local range); in its slot's namespace they
 * are translated to the slot's.
 */
export const GUEST_ADDRESS: number = ipv4("169.254.76.2");
export const GUEST_GATEWAY: number = ipv4("169.254.76.1");
export const GUEST_PREFIX = 30;

/** RFC 2544: for tests of network devices, so that no real network has it. Two addresses a slot. */
export const SLOTS_NETWORK: number = ipv4("198.18.0.0");
export const SLOTS_PREFIX = 15;
export const PAIR_PREFIX = 31;

/** Begins the name of everything on the host: links, tables. */
export const LINK_PREFIX = "hth";
/** Links get indices from here on ("HT" and a number), far from those that the kernel gives by itself. */
const LINK_INDEX_FIRST = 0x4854_0000;

/** What a slot's network is called and has on the host. */
export interface SlotAddresses {
  readonly linkName: string;
  readonly linkIndex: number;
  /** The host's end of the pair. */
  readonly host: number;
  /** The slot's. */
  readonly slot: number;
}

/** Network `number` of a block: no two on a machine are alike. */
export const slotAddresses = (block: number, number: number): SlotAddresses => {
  if (block < 0 || block >= NETWORK_BLOCKS || number < 0 || number >= NETWORKS_MAX)
    throw new Error(`There is no network ${String(number)} in block ${String(block)}`);
  const at = block * NETWORKS_MAX + number;
  return {
    linkName: `${LINK_PREFIX}${String(block)}-${String(number)}`,
    linkIndex: LINK_INDEX_FIRST + at,
    host: SLOTS_NETWORK + 2 * at,
    slot: SLOTS_NETWORK + 2 * at + 1,
  };
};

/** All links of a block, as nftables writes it. */
export const blockLinks = (block: number): string => `${LINK_PREFIX}${String(block)}-*`;

/** The addresses of a block. */
export const blockNetwork = (block: number): { readonly network: number; readonly prefix: number } => ({
  network: SLOTS_NETWORK + 2 * block * NETWORKS_MAX,
  prefix: 31 - Math.log2(NETWORKS_MAX),
});
