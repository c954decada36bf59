import { join } from "node:path";
import { IMAGES_DIRECTORY, SHIM_PATH } from "../src/daemon/settings.ts";
import { systemClock } from "../src/lib/clock.ts";
import { selectHypervisor } from "../src/vmm/hypervisors/select.ts";
import type { BootOptions } from "../src/worker/booted.ts";
import { uplinkMtu } from "../src/worker/network/host.ts";
import { loadRuntimeImages } from "../src/worker/runtime-images.ts";

/** What boots bare microVMs, with run directories below `scratch`. */
export const bootOptions = async (scratch: string): Promise<BootOptions> => {
  const images = await loadRuntimeImages(IMAGES_DIRECTORY);
  const places = { drivesDir: join(scratch, "drives"), scratchDir: join(scratch, "disks") };
  const options = { ...places, sharedImagesDir: images.directory };
  const { hypervisor } = await selectHypervisor("auto", options);
  return {
    clock: systemClock,
    hypervisor,
    root: { path: images.base, readOnly: true },
    init: SHIM_PATH,
    network: { mtu: uplinkMtu() },
    onConsole: () => {},
  };
};
