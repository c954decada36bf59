import { readFileSync } from "node:fs";
import { isIPv4 } from "node:net";
import { NAME_SERVERS_MAX } from "../../wire/limits.ts";

/** The host's own, and where systemd-resolved writes those that it asks itself. */
const FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/** The name servers of a resolv.conf(5) that a guest could reach: IPv4, and not on the loopback. */
export const reachableNameServers = (text: string): string[] =>
  [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)]
    .map(([, address = ""]) => address)
    .filter((address) => isIPv4(address) && !address.startsWith("127."))
    .slice(0, NAME_SERVERS_MAX);

/** The host's name servers as guests can use them; none when all that it has is a resolver on its loopback. */
export const hostNameServers = (files: readonly string[] = FILES): string[] => {
  for (const file of files) {
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch {
      continue;
    }
    const servers = reachableNameServers(text);
    if (servers.length > 0) return servers;
  }
  return [];
};
