import { networkInterfaces } from "node:os";
import { NativeError } from "../../vmm/native.ts";
import type { NetworkMode } from "../../wire/slot.ts";
import { ipv4 } from "./addresses.ts";
import { rangeHolds, rangeText, type AddressRange } from "./address-range.ts";
import { hostNameServers } from "./name-servers.ts";
import { tryNetwork } from "./slot-network.ts";
import { SlotNetworks } from "./slot-networks.ts";

/** The networks of a Hearth's slots, or null, and in either case the reason. */
export interface OpenedNetworks {
  readonly networks: SlotNetworks | null;
  readonly reason: string;
}

const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  if (error.cause !== undefined) return `${error.message}: ${reasonOf(error.cause)}`;
  return error instanceof NativeError && error.code === "EPERM" ? `this needs root (${error.message})` : error.message;
};

/** A setting that would do nothing: without networks there is nothing to open, and this host's own addresses stay closed. */
const refuseVain = (range: AddressRange, mode: NetworkMode | null): void => {
  if (mode === "none") throw new Error(`--network-allow ${rangeText(range)} does nothing with --network none`);
  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, address }) => range.prefix === 32 && family === "IPv4" && rangeHolds(range, ipv4(address)));
  if (own !== undefined)
    throw new Error(`--network-allow ${rangeText(range)} does nothing: an address of this host is closed to functions`);
};

/**
 * Opens the networks as asked: null takes `nat` where this host and user can, and says why where they cannot. Rejects
 * when `nat` is asked for and cannot be, or when ranges are to be opened in vain. `nameServers`: null takes the host's.
 * `opened`: closed ranges (closed-ranges.ts) that guests may reach.
 */
export const openNetworks = async (
  mode: NetworkMode | null,
  nameServers: readonly string[] | null,
  opened: readonly AddressRange[],
): Promise<OpenedNetworks> => {
  for (const range of opened) refuseVain(range, mode);
  if (mode === "none") return { networks: null, reason: "switched off" };
  const servers = nameServers ?? hostNameServers();
  try {
    const networks = await SlotNetworks.open({ nameServers: servers, opened });
    const names = servers.length === 0 ? "no name server that guests could reach" : `names from ${servers.join(", ")}`;
    const also = opened.length === 0 ? "" : `, also open: ${opened.map(rangeText).join(", ")}`;
    return { networks, reason: `a tap and a namespace for every slot, NAT, ${names}${also}` };
  } catch (error) {
    if (mode === "nat" || opened.length > 0)
      throw new Error(`Functions cannot have a network here: ${reasonOf(error)}`, { cause: error });
    return { networks: null, reason: reasonOf(error) };
  }
};

/** Whether this user can make slots' networks here: null, or the reason why not. What it tries is gone when it returns. */
export const probeNetworks = (): Promise<string | null> => tryNetwork().then(() => null, reasonOf);
