import { isIPv4 } from "node:net";
import { ipv4, ipv4Text } from "./addresses.ts";

/** The addresses whose first `prefix` bits are those of `network`. */
export interface AddressRange {
  readonly network: number;
  readonly prefix: number;
}

const BITS = 32;
/** How many IPv4 addresses there are. */
export const ADDRESSES: number = 2 ** BITS;

export const lastAddress = ({ network, prefix }: AddressRange): number => network + 2 ** (BITS - prefix) - 1;

export const rangeHolds = (range: AddressRange, address: number): boolean =>
  address >= range.network && address <= lastAddress(range);

export const rangeText = ({ network, prefix }: AddressRange): string => `${ipv4Text(network)}/${String(prefix)}`;

/** Reads `10.0.0.0/8`, or `10.0.0.1` for that address alone. Throws when the text is none, or has bits beyond its prefix. */
export const parseRange = (text: string): AddressRange => {
  const [address = "", bits = String(BITS), ...rest] = text.split("/");
  const prefix = Number(bits);
  if (!isIPv4(address) || !/^\d{1,2}$/.test(bits) || prefix > BITS || rest.length > 0)
    throw new Error(`"${text}" must be an IPv4 range such as 10.0.0.0/8`);
  const given = ipv4(address);
  const range = { network: given - (given % 2 ** (BITS - prefix)), prefix };
  if (range.network !== given)
    throw new Error(`"${text}" has bits beyond its prefix: the range is ${rangeText(range)}`);
  return range;
};
