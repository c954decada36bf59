import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** As `nft --json list chains` writes one; only what matters here. */
interface ListedChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook?: string;
  readonly policy?: string;
}

/**
 * Chains of other programs that drop what is forwarded unless a rule of theirs lets it pass (Docker's, ufw's): every
 * firewall of a machine must agree to a packet. As `TABLE CHAIN`; none when nft is not there to ask.
 */
export const forwardDroppers = async (): Promise<string[]> => {
  const listed = await promisify(execFile)("nft", ["--json", "list", "chains"], { timeout: 10_000 }).catch(() => null);
  if (listed === null) return [];
  const { nftables } = JSON.parse(listed.stdout) as { nftables: readonly { readonly chain?: ListedChain }[] };
  return nftables.flatMap(({ chain }) =>
    chain?.hook === "forward" && chain.policy === "drop" && ["ip", "inet"].includes(chain.family)
      ? [`${chain.table} ${chain.name}`]
      : [],
  );
};
