import { coldBurst } from "./burst.ts";
import { eventQueue } from "./event-queue.ts";
import { manyClients } from "./clients.ts";
import { placement, reserve } from "./control-plane.ts";
import { densityOf128, densityOf512 } from "./density.ts";
import type { DensityBench } from "./density.ts";
import type { BootBench } from "./microvm.ts";
import { bootMany, bootSerial, bootSizes, idleMemory } from "./microvm.ts";
import { qemu } from "./qemu.ts";
import type { InvokeBench } from "./invoke.ts";
import { bigPayloads, coldNative, coldNode, reuseNever, throughput, warmNode } from "./invoke.ts";
import { neighbours } from "./neighbours.ts";
import { guestWork } from "./guest-work.ts";
import type { Result } from "./result.ts";
import { slotMemory } from "./slot-memory.ts";
import { tracing } from "./tracing.ts";
import { bareNode, gvisor } from "./peers.ts";

/** One thing that is measured. `null` from `run` means that it cannot be measured here. */
export type Bench = { readonly name: string; readonly about: string } & (
  | { readonly needs: "microvm"; readonly run: BootBench }
  | { readonly needs: "hearth"; readonly run: InvokeBench }
  | { readonly needs: "crowd"; readonly run: DensityBench }
  | { readonly needs: "nothing"; readonly run: () => Promise<Result | null> }
);

/** In the order they are run: microVMs alone, the service, what others take for the same. */
export const BENCHES: readonly Bench[] = [
  { name: "boot", about: "microVM, spawn → shim connected, one after the other", needs: "microvm", run: bootSerial },
  { name: "boot-50", about: "the same, 50 at a time", needs: "microvm", run: bootMany },
  { name: "boot-sizes", about: "boots of microVMs of 128 to 10,240 MB", needs: "microvm", run: bootSizes },
  { name: "idle-memory", about: "host memory of an idle booted microVM", needs: "microvm", run: idleMemory },
  { name: "cold-native", about: "cold invoke through the SDK, native bootstrap", needs: "hearth", run: coldNative },
  { name: "cold-node", about: "cold invoke through the SDK, nodejs24.x", needs: "hearth", run: coldNode },
  { name: "reuse-never", about: "a fresh microVM for every call, native bootstrap", needs: "hearth", run: reuseNever },
  {
    name: "guest-work",
    about: "what Node's start and a warm call make its kernel do",
    needs: "hearth",
    run: guestWork,
  },
  { name: "warm-node", about: "warm invoke through the SDK, nodejs24.x", needs: "hearth", run: warmNode },
  { name: "throughput", about: "warm invokes by 8 clients at once, nodejs24.x", needs: "hearth", run: throughput },
  { name: "neighbours", about: "warm invokes beside a greedy function, as a ratio", needs: "hearth", run: neighbours },
  { name: "burst", about: "300 cold calls at once, native, without a pool", needs: "nothing", run: coldBurst },
  {
    name: "clients",
    about: "warm invokes by 256 clients at once against 8, Node and native",
    needs: "nothing",
    run: manyClients,
  },
  { name: "slot-memory", about: "host memory of a warm idle slot, nodejs24.x", needs: "hearth", run: slotMemory },
  { name: "payload-6mb", about: "6 MB in and 6 MB out, nodejs24.x", needs: "hearth", run: bigPayloads },
  { name: "reserve", about: "Worker Manager, 2,000 reservations a second", needs: "nothing", run: reserve },
  { name: "placement", about: "Placement, one decision with 10,000 workers", needs: "nothing", run: placement },
  {
    name: "queue",
    about: "events: accepts by 64 clients, reserved concurrency 1, another's first behind 10,000",
    needs: "nothing",
    run: eventQueue,
  },
  { name: "tracing", about: "warm invokes by 8 clients, without and with traces sent", needs: "nothing", run: tracing },
  { name: "bare-node", about: "for comparison: a bare node process for every call", needs: "nothing", run: bareNode },
  { name: "qemu", about: "for comparison: QEMU microvm, emulated, start → init", needs: "nothing", run: qemu },
  { name: "gvisor", about: "for comparison: node in a gVisor sandbox for every call", needs: "nothing", run: gvisor },
  {
    name: "density-512",
    about: "1,800 microVMs of 512 MB at once, beside a Hearth",
    needs: "crowd",
    run: densityOf512,
  },
  {
    name: "density-128",
    about: "3,000 microVMs of 128 MB at once, beside a Hearth",
    needs: "crowd",
    run: densityOf128,
  },
];
