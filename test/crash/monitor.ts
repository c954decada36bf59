import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";

/*
 * A monitor that is always in the midst of making and ending microVMs, to be killed: `node monitor.ts RUNDIR IMAGE`
 * says "go" when it begins.
 */
const LIFE_MS = 10;
const PAUSE_MS = 2;

const [runDir = "", image = ""] = process.argv.slice(2);
const hypervisor = new UmlHypervisor({ runDir });
let made = 0;
const one = async (): Promise<void> => {
  const id = `crash-${String(process.pid)}-${String((made += 1))}`;
  const drives = [{ path: image, readOnly: true }] as const;
  const vm = await hypervisor.spawn({ id, memoryMib: 64, drives, init: "/init" });
  setTimeout(() => void vm.kill("it has lived"), LIFE_MS);
};
console.log("go");
setInterval(() => void one(), PAUSE_MS);
