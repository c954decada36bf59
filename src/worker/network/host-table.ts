import { askNetlink, checked, native, NETLINK_NETFILTER, NetlinkError } from "../../vmm/native.ts";
import { NETWORK_BLOCKS } from "../../wire/limits.ts";
import { netlinkRequest } from "./netlink.ts";
import { addTable } from "./nftables.ts";
import { hostTable, type Reach } from "./rules.ts";

/** Another Hearth's: a table of that name cannot be made, neither by who has it already nor by anyone else. */
const isTaken = (error: unknown): boolean =>
  error instanceof NetlinkError && (error.code === "EEXIST" || (error.code === "EPERM" && error.failedAt > 0));

/**
 * The rules on the host for the slots of one Hearth, and with them the block of names and addresses that no other
 * Hearth of this machine has meanwhile. Gone when it is disposed, or this process ends.
 */
export class HostTable implements Disposable {
  readonly block: number;
  readonly #socket: number;

  private constructor(socket: number, block: number) {
    this.#socket = socket;
    this.block = block;
  }

  /** Takes the first block that is free. Throws a `NetlinkError` when this host or user cannot. */
  static take(reach: Reach): HostTable {
    const socket = checked("Open netlink", native().openNetlink(NETLINK_NETFILTER));
    try {
      for (let block = 0; block < NETWORK_BLOCKS; block++) {
        try {
          const request = netlinkRequest(addTable(hostTable(block, reach)));
          askNetlink(socket, "Load rules into nf_tables", request);
          return new HostTable(socket, block);
        } catch (error) {
          if (!isTaken(error)) throw error;
        }
      }
      throw new Error(`${String(NETWORK_BLOCKS)} Hearths with networks run on this machine, which is the limit`);
    } catch (error) {
      native().close(socket);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    native().close(this.#socket);
  }
}
