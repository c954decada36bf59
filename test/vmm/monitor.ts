/** A monitor of its own for the tests of crashes: spawns a guest, says its pid, and waits to be killed. */
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";

const [runDir = "", image = ""] = process.argv.slice(2);
const hypervisor = new UmlHypervisor({ runDir });
const vm = await hypervisor.spawn({
  id: "orphan",
  memoryMib: 64,
  drives: [{ path: image, readOnly: true }],
  init: "/init",
});
vm.listen(1024, () => {
  void vm.stats().then(({ pid }) => console.log(pid));
});
