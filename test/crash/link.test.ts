import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemIds } from "../../src/lib/ids.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { IMAGES_DIRECTORY, SHIM_PATH } from "../../src/daemon/settings.ts";
import { makeImage } from "../../src/store/code/image.ts";
import { createMetrics, noTracer } from "../../src/telemetry/index.ts";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import type { Hypervisor } from "../../src/vmm/microvm.ts";
import type { FunctionSpec } from "../../src/wire/function.ts";
import type { InvocationRequest, InvocationResult } from "../../src/wire/invocation.ts";
import { LOG_RATE_KIB_DEFAULT } from "../../src/worker/log-rate.ts";
import { HostLoad } from "../../src/worker/host-load.ts";
import { MemoryStalls } from "../../src/worker/memory/memory-stalls.ts";
import { HostMemory } from "../../src/worker/memory/host-memory.ts";
import { diskReading } from "../../src/worker/scratch/disk-reading.ts";
import { MicroManager } from "../../src/worker/micro-manager.ts";
import { loadRuntimeImages } from "../../src/worker/runtime-images.ts";
import { eventually } from "../functional/hearth.ts";
import { compile } from "../vmm/guest.ts";

/** Longer than the test takes to break the stream. */
const WORK_MS = 2_000;

const SPEC: FunctionSpec = {
  functionArn: "arn:aws:lambda:us-east-1:000000000000:function:f",
  functionName: "f",
  version: "$LATEST",
  revision: "r",
  accountId: "000000000000",
  region: "us-east-1",
  runtime: "provided.al2023",
  handler: "bootstrap",
  memoryMb: 128,
  timeoutMs: 10_000,
  ephemeralMb: 512,
  environment: {},
  code: "code",
  layers: [],
  logGroup: "/aws/lambda/f",
  logFormat: "Text",
  reuse: "always",
};

/** The campaign's function as an image that any microVM may read. */
const codeImage = async (directory: string): Promise<string> => {
  const tree = join(directory, "tree");
  mkdirSync(tree);
  compile(new URL("function.c", import.meta.url).pathname, join(tree, "bootstrap"));
  writeFileSync(join(tree, "mark"), "mark");
  const image = join(directory, "code.erofs");
  await makeImage(tree, image);
  chmodSync(image, 0o444);
  return image;
};

/** The hypervisor, and the host's end of the shim's stream of every microVM it makes. */
const watched = (hypervisor: UmlHypervisor, streams: Duplex[]): Hypervisor => ({
  name: hypervisor.name,
  probe: () => hypervisor.probe(),
  cleanStale: () => hypervisor.cleanStale(),
  spawn: async (config) => {
    const vm = await hypervisor.spawn(config);
    const listen = vm.listen.bind(vm);
    vm.listen = (port, accept) =>
      listen(port, (stream) => {
        streams.push(stream);
        accept(stream);
      });
    return vm;
  },
});

let calls = 0;
const invoke = async (worker: MicroManager, slotId: string, ms: number): Promise<InvocationResult> => {
  const lease = { leaseId: "l", slotId, workerId: worker.workerId, validMs: 60_000, cold: true };
  const request: InvocationRequest = {
    requestId: `request-${(calls += 1)}`,
    invokedFunctionArn: SPEC.functionArn,
    clientContext: null,
    cognitoIdentity: null,
    traceId: null,
    trace: null,
    payload: Buffer.from(JSON.stringify({ ms })),
    asynchronous: false,
    receivedAtMs: Date.now(),
  };
  return worker.invoke(lease, request);
};

const BREAKS: readonly (readonly [how: string, act: (stream: Duplex) => void])[] = [
  ["is reset", (stream) => stream.destroy()],
  ["breaks with an error", (stream) => stream.destroy(new Error("broken by the test"))],
  ["is ended by the host", (stream) => stream.end()],
  ["carries what is no frame", (stream) => stream.write(Buffer.alloc(64, 0xff))],
];

test("whatever becomes of the stream to a shim: its invocation fails, its microVM ends, the next slot works", async () => {
  const directory = mkdtempSync(join(tmpdir(), "hearth-link-"));
  chmodSync(directory, 0o755);
  try {
    const image = await codeImage(directory);
    const images = await loadRuntimeImages(IMAGES_DIRECTORY);
    const streams: Duplex[] = [];
    const hypervisor = watched(new UmlHypervisor({ sharedImagesDir: images.directory }), streams);
    const load = new HostLoad(directory, systemClock);
    await using worker = new MicroManager({
      workerId: "w",
      clock: systemClock,
      ids: systemIds,
      metrics: createMetrics(),
      tracer: noTracer,
      boot: {
        hypervisor,
        root: { path: images.base, readOnly: true },
        init: SHIM_PATH,
        network: null,
        onConsole: () => {},
      },
      network: async () => null,
      runtime: (name, region) => images.runtime(name, region),
      image: async () => image,
      logSink: () => ({ write: () => {}, leftOut: () => {}, flush: async () => {} }),
      logRateKib: LOG_RATE_KIB_DEFAULT,
      warn: () => {},
      load: () => load.read(),
      scratchDisk: () => diskReading(directory),
      scratchBytesMax: null,
      cpu: "soft",
      cpus: 2,
      slotsMax: 10,
      memoryMbMax: 10_000,
      memory: async () => new HostMemory(null).read(),
      memoryBytesTotal: totalmem(),
      memoryStalls: (onStall) => new MemoryStalls(null, systemClock, onStall),
      slotIdleMs: 60_000,
      poolFloor: 0,
      poolMax: 0,
      warmMemoryMb: [],
    });
    for (const [at, [how, act]] of BREAKS.entries()) {
      await worker.createSlot({ slotId: `slot-${at}`, spec: SPEC, placementLeaseId: `lease-${at}`, trace: null });
      const first = await invoke(worker, `slot-${at}`, 0);
      assert.equal(Buffer.from(first.payload).toString(), '"mark"', how);
      const running = invoke(worker, `slot-${at}`, WORK_MS);
      await sleep(200);
      const stream = streams.at(-1);
      assert.ok(stream !== undefined);
      act(stream);
      await assert.rejects(
        running,
        { name: "ServiceException", message: /^The microVM ended before the invocation did: / },
        how,
      );
      await eventually("the slot is gone", async () => ((await worker.listSlots()).length === 0 ? true : null));
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});
