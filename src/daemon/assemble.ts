import { statfsSync } from "node:fs";
import { availableParallelism, hostname } from "node:os";
import { createSystemClock } from "../lib/clock.ts";
import { ownedClock } from "../lib/owned-clock.ts";
import type { TurnOwner, Turns } from "../lib/turn-meter.ts";
import type { Clock } from "../lib/clock.ts";
import { systemIds } from "../lib/ids.ts";
import { systemRandom } from "../lib/random.ts";
import { startFrontend } from "../frontend/frontend.ts";
import { Placement } from "../placement/placement.ts";
import { listRuntimes } from "../runtimes/catalog.ts";
import { openCodeStore } from "../store/code/file-code-store.ts";
import { openSqliteStore } from "../store/sqlite/sqlite.ts";
import { createMetrics, FunctionLogs } from "../telemetry/index.ts";
import type { LogRetention, Tracer } from "../telemetry/index.ts";
import { isReachable } from "../vmm/hypervisors/uml/run-directory.ts";
import { vmmOptions } from "../vmm/config.ts";
import { selectHypervisor } from "../vmm/hypervisors/select.ts";
import { findMemoryGroups } from "../vmm/jail/memory-groups.ts";
import { readProcessLimits } from "../vmm/jail/process-limits.ts";
import { serviceFailure } from "../wire/errors.ts";
import {
  CONCURRENCY_ACCOUNT_DEFAULT,
  HEARTBEAT_MS,
  LOG_AGE_DAYS_DEFAULT,
  LOGS_DISK_SHARE,
  LOGS_MB_DEFAULT_MAX,
  LOGS_MB_MIN,
  MEMORY_MB_DEFAULT,
  NETWORK_MBIT_DEFAULT,
  OVERCOMMIT_DEFAULT,
  POOL_FLOOR,
  SLOT_IDLE_MS_DEFAULT,
  SLOTS_MAX_DEFAULT,
} from "../wire/limits.ts";
import { WorkerManager } from "../worker-manager/worker-manager.ts";
import { LOG_RATE_KIB_DEFAULT } from "../worker/log-rate.ts";
import { HostLoad } from "../worker/host-load.ts";
import { diskReading } from "../worker/scratch/disk-reading.ts";
import { HostMemory } from "../worker/memory/host-memory.ts";
import { MemoryStalls } from "../worker/memory/memory-stalls.ts";
import { MicroManager } from "../worker/micro-manager.ts";
import { openNetworks, type OpenedNetworks } from "../worker/network/open.ts";
import { loadRuntimeImages } from "../worker/runtime-images.ts";
import type { AssembleHearth, HearthOptions } from "./hearth-options.ts";
import { readinessOf } from "./readiness.ts";
import { diskUse, watchDisk } from "./disk-watch.ts";
import { dataFiles, IMAGES_DIRECTORY, SHIM_PATH } from "./settings.ts";
import { openTracer } from "./tracing.ts";
import { measureTurns } from "./turns.ts";
import { reckonCapacity } from "./capacity.ts";
import type { Capacity } from "./capacity.ts";
import { LastResort } from "./last-resort.ts";

const TIMER: TurnOwner = { kind: "timer", name: "" };
/** The queue's events lie in the data directory, and its lock lets one Hearth at a time have them. */
const INSTANCE = "data-directory";
/** Functions that an operator is told of by name. */
const BUSIEST_FUNCTIONS = 20;
const BYTES_PER_MIB = 1024 * 1024;
const MS_PER_DAY = 86_400_000;

/**
 * Puts the roles together in one process: store, worker, Placement, Worker Manager, Frontend, in this order, each owned
 * by the stack and ended in the opposite one.
 */
export const assembleHearth: AssembleHearth = async (options) => {
  const { dataDir, log } = options;
  await using stack = new AsyncDisposableStack();
  const files = dataFiles(dataDir);
  const system = createSystemClock((error) => lastResort.take("timer", error));
  const metrics = createMetrics();
  const lastResort = stack.use(new LastResort(log, metrics));
  const { turns, judge } = measureTurns(system, log, metrics);
  const clock = ownedClock(system, (callback) => {
    turns.begin(TIMER);
    return callback();
  });
  const ids = systemIds;
  const capacity = reckonCapacity(readProcessLimits(), options.slotsMax ?? SLOTS_MAX_DEFAULT);
  for (const text of capacity.lowered) log.warn(`lowered to what this host lets Hearth have: ${text}`);
  const { tracer } = stack.use(await openTracer(options.otlp, { env: process.env, log, clock, ids }));
  const logs = stack.use(
    new FunctionLogs(files.logs, {
      clock,
      retention: logRetention(options),
      onError: (error) => log.error({ err: error }, "function log"),
    }),
  );
  const store = stack.use(
    openSqliteStore(files.database, clock, {
      credentialsDirectory: process.env["CREDENTIALS_DIRECTORY"],
      onDamage: (message) => log.warn(message),
    }),
  );
  stack.use(watchDisk({ clock, use: () => diskUse(dataDir), warn: (message) => log.warn(message) }));
  const code = await openCodeStore(dataDir, clock, (message) => log.warn(message));

  const network = await openNetworks(options.network, options.nameServers, options.networkAllow);
  if (network.networks !== null) stack.use(network.networks);
  if (network.networks?.switchedForwardingOn === true)
    log.warn(
      "this machine did not forward IPv4 packets; now it does (sysctl net.ipv4.ip_forward=1), and goes on after Hearth's end",
    );
  const { worker, hypervisor } = await startWorker(options, {
    capacity,
    clock,
    turns,
    metrics,
    tracer,
    logs,
    code,
    network,
  });
  stack.use(worker);
  const placement = new Placement({ clock, ids, random: systemRandom });
  const manager = new WorkerManager({
    placement,
    metrics,
    tracer,
    clock,
    ids,
    accountConcurrency: CONCURRENCY_ACCOUNT_DEFAULT,
  });
  placement.heartbeat(await worker.report());
  await manager.addWorker(worker);
  stack.use(clock.every(HEARTBEAT_MS, () => beat()));
  const beat = async (): Promise<void> => {
    try {
      placement.heartbeat(await worker.report());
      await manager.sweep();
    } catch (error) {
      log.error({ err: error }, "heartbeat");
    }
  };

  const frontend = stack.use(
    await startFrontend({
      listen: options.listen,
      auth: options.auth === "none" ? "none" : options.keys,
      allowedHosts: options.allowedHosts,
      connectionsMax: capacity.connectionsMax,
      tls: options.tls,
      config: {
        instance: INSTANCE,
        accountId: options.accountId,
        region: options.region,
        runtimes: listRuntimes().map((runtime) => runtime.name),
        reuse: options.reuse,
        concurrencyMax: CONCURRENCY_ACCOUNT_DEFAULT,
      },
      store,
      code,
      metrics,
      tracer,
      clock,
      turns,
      ids,
      random: systemRandom,
      log,
      ready: readinessOf({ dataDir, clock, log, store: () => store.backlog(), report: () => worker.report() }),
      workerManager: manager,
      workers: (workerId) => {
        if (workerId === worker.workerId) return worker;
        throw serviceFailure(`Worker ${workerId} is not known here.`);
      },
    }),
  );
  metrics.readFrom(async () => ({
    workers: [await worker.reading()],
    concurrency: { account: (await manager.concurrency()).account, limit: CONCURRENCY_ACCOUNT_DEFAULT },
    events: await frontend.backlog(),
    logLinesDropped: logs.droppedRecords,
    hostLog: options.logOutput.losses,
    http: frontend.holds,
  }));
  const owned = stack.move();
  judge();
  return {
    address: { host: frontend.address, port: frontend.port },
    hypervisor,
    network: {
      mode: network.networks === null ? "none" : "nat",
      reason: network.reason,
      links: network.networks?.links ?? null,
    },
    slots: { listSlots: () => worker.measureSlots(), report: () => worker.report() },
    queue: async () => ({
      waiting: (await frontend.backlog()).waiting,
      ...frontend.queue,
      busiest: await store.busiestFunctions(BUSIEST_FUNCTIONS),
    }),
    metrics,
    drain: async (timeoutMs) => {
      const over = new AbortController();
      await Promise.race([frontend.drain(), clock.sleep(timeoutMs, over.signal)]);
      over.abort();
    },
    [Symbol.asyncDispose]: async () => {
      // First the microVMs: what still runs in them fails now, so that the Frontend has nothing to wait for.
      await worker[Symbol.asyncDispose]();
      await owned.disposeAsync();
    },
  };
};

/**
 * Drives lie beside the code where microVMs' users can get there, so that an image is attached by a hard link and its pages
 * are shared; else where the hypervisor has them by default, and images are copied.
 */
const driveDirectories = (dataDir: string): { drivesDir?: string; scratchDir?: string } => {
  const { drives, scratch } = dataFiles(dataDir);
  return isReachable(drives) ? { drivesDir: drives, scratchDir: scratch } : {};
};

/** Of the data directory's disk, unless told otherwise: what is kept is to leave room for what is stored. */
const logRetention = ({ dataDir, logsMbMax, logAgeDaysMax }: HearthOptions): LogRetention => {
  const { blocks, bsize } = statfsSync(dataDir);
  const mbMax = logsMbMax ?? Math.min(LOGS_MB_DEFAULT_MAX, (blocks * bsize * LOGS_DISK_SHARE) / BYTES_PER_MIB);
  return {
    ageMsMax: (logAgeDaysMax ?? LOG_AGE_DAYS_DEFAULT) * MS_PER_DAY,
    bytesMax: Math.max(LOGS_MB_MIN, mbMax) * BYTES_PER_MIB,
  };
};

interface WorkerParts {
  readonly capacity: Capacity;
  readonly turns: Turns;
  readonly clock: Clock;
  readonly metrics: ReturnType<typeof createMetrics>;
  readonly tracer: Tracer;
  readonly logs: FunctionLogs;
  readonly code: Awaited<ReturnType<typeof openCodeStore>>;
  readonly network: OpenedNetworks;
}

/** The worker of this machine: hypervisor, images, Micro Manager. */
const startWorker = async (
  options: HearthOptions,
  { capacity, clock, turns, metrics, tracer, logs, code, network: { networks } }: WorkerParts,
): Promise<{ worker: MicroManager; hypervisor: { name: string; reason: string } }> => {
  const { log } = options;
  const memory = new HostMemory(findMemoryGroups());
  const { totalBytes } = memory.read();
  const images = await loadRuntimeImages(IMAGES_DIRECTORY);
  const { hypervisor, candidates } = await selectHypervisor(options.hypervisor, {
    clock,
    turns,
    onLeft: (error) => log.warn({ err: error }, "a microVM left something behind; it is tried again"),
    ...driveDirectories(options.dataDir),
    sharedImagesDir: images.directory,
    drivePages: options.drivePages,
  });
  const stale = hypervisor.cleanStale();
  if (stale.length > 0) log.warn({ count: stale.length }, "removed what was left of microVMs of an earlier run");
  const load = new HostLoad(options.dataDir, clock);
  const scratchDir = driveDirectories(options.dataDir).scratchDir ?? vmmOptions().scratchDir;
  const worker = new MicroManager({
    workerId: hostname(),
    clock,
    ids: systemIds,
    metrics,
    tracer,
    boot: {
      hypervisor,
      root: { path: images.base, readOnly: true },
      init: SHIM_PATH,
      network:
        networks === null ? null : { mtu: networks.mtu, mbitPerS: options.networkMbitPerS ?? NETWORK_MBIT_DEFAULT },
      onConsole: (id, chunk) => log.debug({ vm: id }, Buffer.from(chunk).toString().trimEnd()),
    },
    network: async () => networks?.take() ?? null,
    runtime: (name, region) => images.runtime(name, region),
    image: async (digest) => {
      const image = await code.get(digest);
      if (image === null) throw serviceFailure(`The code ${digest} is gone from this host.`);
      return image.imagePath;
    },
    logSink: (functionName, stream) => logs.stream(functionName, stream),
    logRateKib: options.logRateKib ?? LOG_RATE_KIB_DEFAULT,
    warn: (message, error) => log.warn({ err: error }, message),
    load: () => load.read(),
    scratchDisk: () => diskReading(scratchDir),
    scratchBytesMax: options.scratchMbMax === null ? null : options.scratchMbMax * BYTES_PER_MIB,
    cpu: options.cpu,
    cpus: availableParallelism(),
    slotsMax: capacity.slotsMax,
    memory: async () => memory.read(),
    memoryBytesTotal: totalBytes,
    memoryStalls: (onStall) => new MemoryStalls(memory.limitedGroup(), clock, onStall),
    memoryMbMax:
      options.memoryMbMax ?? Math.floor((totalBytes / BYTES_PER_MIB) * (options.overcommit ?? OVERCOMMIT_DEFAULT)),
    slotIdleMs: SLOT_IDLE_MS_DEFAULT,
    poolFloor: options.pool ?? POOL_FLOOR,
    poolMax: capacity.poolMax,
    warmMemoryMb: [MEMORY_MB_DEFAULT],
  });
  const reason = candidates.map(({ probe }) => (probe.usable ? probe.detail : probe.reason)).join("; ");
  return { worker, hypervisor: { name: hypervisor.name, reason } };
};
