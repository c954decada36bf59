import { SLOTS_NETWORK, SLOTS_PREFIX } from "./addresses.ts";
import { ADDRESSES, lastAddress, parseRange, rangeHolds, type AddressRange } from "./address-range.ts";

/** Addresses from `first` to `last`, both included. */
export interface AddressInterval {
  readonly first: number;
  readonly last: number;
}

/** Why a range is closed: what lies there. */
type Kind = "private" | "shared" | "metadata" | "reserved";

interface ClosedRange extends AddressRange {
  readonly kind: Kind;
  /** False for what no option opens: nobody outside can have such an address, or Hearth's own slots have it. */
  readonly openable: boolean;
}

/** A rank above every prefix's. */
const UNDISPUTED = 33;

const closed = (kind: Kind, cidr: string, openable = true): ClosedRange => ({
  ...parseRange(cidr),
  kind,
  openable,
});

/**
 * What guests do not reach unless it is opened. Ranges by IANA's registry of special-purpose IPv4 addresses (RFC 6890);
 * metadata services, which hand out the host's own credentials, by their clouds' documentation.
 */
const CLOSED: readonly ClosedRange[] = [
  closed("reserved", "0.0.0.0/8", false),
  closed("private", "10.0.0.0/8"),
  closed("shared", "100.64.0.0/10"),
  closed("metadata", "100.100.100.200/32"), // Alibaba Cloud
  closed("reserved", "127.0.0.0/8", false),
  closed("metadata", "168.63.129.16/32"), // Azure
  closed("reserved", "169.254.0.0/16"), // link-local: RFC 3927
  closed("metadata", "169.254.0.23/32"), // Tencent Cloud
  closed("metadata", "169.254.169.254/32"), // AWS, Azure, Google Cloud, and most others
  closed("metadata", "169.254.170.2/32"), // AWS, credentials of containers
  closed("metadata", "169.254.170.23/32"), // AWS, credentials of pods
  closed("private", "172.16.0.0/12"),
  closed("reserved", "192.0.0.0/24"), // protocol assignments: RFC 6890
  closed("metadata", "192.0.0.192/32"), // Oracle Cloud
  closed("reserved", "192.0.2.0/24"), // documentation: RFC 5737
  closed("reserved", "192.88.99.0/24"), // once 6to4 relays: RFC 7526
  closed("private", "192.168.0.0/16"),
  { network: SLOTS_NETWORK, prefix: SLOTS_PREFIX, kind: "reserved", openable: false },
  closed("reserved", "198.51.100.0/24"),
  closed("reserved", "203.0.113.0/24"),
  closed("reserved", "224.0.0.0/4", false), // multicast
  closed("reserved", "240.0.0.0/4"),
];

/**
 * The closed addresses once `opened` is open, in order, as few intervals as there can be. The narrowest range that has an
 * address decides, so that opening a private network opens no metadata service that lies in it; of two equal ones
 * the opened one does.
 */
export const closedIntervals = (opened: readonly AddressRange[]): AddressInterval[] => {
  const deciders = [
    ...opened.map((range) => ({ range, isClosed: false, rank: range.prefix + 0.5 })),
    ...CLOSED.map((range) => ({ range, isClosed: true, rank: range.openable ? range.prefix : UNDISPUTED })),
  ].sort((a, b) => b.rank - a.rank);
  const isClosed = (address: number): boolean =>
    deciders.find(({ range }) => rangeHolds(range, address))?.isClosed ?? false;
  // Between two neighbours of these the answer does not change.
  const edges = new Set(deciders.flatMap(({ range }) => [range.network, lastAddress(range) + 1]));
  const steps = [...edges].filter((edge) => edge < ADDRESSES).sort((a, b) => a - b);
  const intervals: { first: number; last: number }[] = [];
  for (const [at, first] of steps.entries()) {
    if (!isClosed(first)) continue;
    const last = (steps[at + 1] ?? ADDRESSES) - 1;
    const before = intervals.at(-1);
    if (before?.last === first - 1) before.last = last;
    else intervals.push({ first, last });
  }
  return intervals;
};

const bounds = (intervals: readonly AddressInterval[]): string =>
  intervals.map(({ first, last }) => `${String(first)}-${String(last)}`).join();

/** Whether opening a range changes anything: what is open by itself, or for nobody, need not or cannot be opened. */
export const opensAnything = (range: AddressRange): boolean =>
  bounds(closedIntervals([range])) !== bounds(closedIntervals([]));
