import type { VmmOptions } from "../config.ts";
import type { Hypervisor, HypervisorProbe } from "../microvm.ts";
import { UmlHypervisor } from "./uml/hypervisor.ts";

export type HypervisorChoice = "auto" | Hypervisor["name"];

/** A hypervisor that was looked at, and what was found. */
export interface Candidate {
  readonly name: Hypervisor["name"];
  readonly probe: HypervisorProbe;
}

/** The chosen one and all that were looked at, for `hearth doctor`. */
export interface Selection {
  readonly hypervisor: Hypervisor;
  readonly candidates: readonly Candidate[];
}

const notBuilt = (name: "kvm" | "firecracker"): Candidate => ({
  name,
  probe: { usable: false, reason: `${name}: not built yet` },
});

/** Finds out what this host can do and takes the best of it. Throws with all reasons when nothing is usable. */
export const selectHypervisor = async (
  choice: HypervisorChoice = "auto",
  options: Partial<VmmOptions> = {},
): Promise<Selection> => {
  const uml = new UmlHypervisor(options);
  const candidates: Candidate[] = [notBuilt("kvm"), notBuilt("firecracker"), { name: "uml", probe: await uml.probe() }];
  const asked = candidates.filter(({ name }) => choice === "auto" || name === choice);
  if (asked.some(({ name, probe }) => name === "uml" && probe.usable)) return { hypervisor: uml, candidates };
  const reasons = asked.map(({ name, probe }) => `${name}: ${probe.usable ? "usable" : probe.reason}`).join("; ");
  throw new Error(`No hypervisor is usable here: ${reasons}`);
};
