import { readFileSync, writeFileSync } from "node:fs";
import { MTU_DEFAULT } from "../../vmm/devices/net.ts";

const FORWARDING = "/proc/sys/net/ipv4/ip_forward";
const ROUTES = "/proc/net/route";
/** RFC 791: what every network carries. */
const MTU_MIN = 576;

/** The link of the default route with the lowest metric, or null. proc_net(5): name, destination, gateway, flags, …, metric, mask. */
export const defaultLink = (routes: string): string | null => {
  const found = routes
    .split("\n")
    .slice(1)
    .map((line) => line.split("\t"))
    .filter(([, destination, , , , , , mask]) => destination === "00000000" && mask === "00000000")
    .sort((a, b) => Number(a[6]) - Number(b[6]));
  return found[0]?.[0] ?? null;
};

/** Bytes of the longest packet that leaves the host unbroken, at most Ethernet's. */
export const uplinkMtu = (): number => {
  try {
    const link = defaultLink(readFileSync(ROUTES, "utf8"));
    if (link === null) return MTU_DEFAULT;
    const mtu = Number(readFileSync(`/sys/class/net/${link}/mtu`, "utf8"));
    return Math.min(MTU_DEFAULT, Math.max(MTU_MIN, mtu));
  } catch {
    return MTU_DEFAULT;
  }
};

/** Makes the host forward IPv4 if it does not yet; true when that had to be switched on. It is never switched off: others may rely on it by then. */
export const switchForwardingOn = (): boolean => {
  if (readFileSync(FORWARDING, "utf8").trim() !== "0") return false;
  writeFileSync(FORWARDING, "1");
  return true;
};
