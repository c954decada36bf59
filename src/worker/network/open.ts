import { NativeError } from "../../vmm/native.ts";
import type { NetworkMode } from "../../wire/slot.ts";
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

/**
 * Opens the networks as asked: null takes `nat` where this host and user can, and says why where they cannot. Rejects
 * when `nat` is asked for and cannot be. `nameServers`: null takes the host's.
 */
export const openNetworks = async (
  mode: NetworkMode | null,
  nameServers: readonly string[] | null,
): Promise<OpenedNetworks> => {
  if (mode === "none") return { networks: null, reason: "switched off" };
  const servers = nameServers ?? hostNameServers();
  try {
    const networks = await SlotNetworks.open({ nameServers: servers });
    const names = servers.length === 0 ? "no name server that guests could reach" : `names from ${servers.join(", ")}`;
    return { networks, reason: `a tap and a namespace for every slot, NAT, ${names}` };
  } catch (error) {
    if (mode === "nat") throw new Error(`Functions cannot have a network here: ${reasonOf(error)}`, { cause: error });
    return { networks: null, reason: reasonOf(error) };
  }
};

/** Whether this user can make slots' networks here: null, or the reason why not. What it tries is gone when it returns. */
export const probeNetworks = (): Promise<string | null> => tryNetwork().then(() => null, reasonOf);
