import { writeSync } from "node:fs";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const LOOK_MS = 250;

interface Watched {
  /** The seed that runs, in a buffer that both threads see. */
  readonly seed: Int32Array;
  readonly cpuMsMax: number;
}

/**
 * Ends this process when a seed takes more than `cpuMsMax` of its CPU time, and says on its standard output (as seeds.ts
 * tells failures) which. A world that loops never lets go of its thread: another one watches, and it does not keep the
 * process alive. CPU time, because a busy machine makes no seed endless.
 */
export const watchSeeds = (cpuMsMax: number): { begin(seed: number): void } => {
  const seed = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const watched: Watched = { seed, cpuMsMax };
  new Worker(new URL(import.meta.url), { workerData: watched, execArgv: [] }).unref();
  return { begin: (next) => void Atomics.store(seed, 0, next) };
};

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

const watch = ({ seed, cpuMsMax }: Watched): void => {
  let last = { seed: Atomics.load(seed, 0), cpuMs: cpuMs() };
  setInterval(() => {
    const now = { seed: Atomics.load(seed, 0), cpuMs: cpuMs() };
    if (now.seed !== last.seed) last = now;
    if (now.cpuMs - last.cpuMs < cpuMsMax) return;
    const violations = [`it is not over after ${cpuMsMax} ms of CPU time`];
    writeSync(1, `${JSON.stringify({ seed: now.seed, violations, log: [] })}\n`);
    // `exit` ends but a thread, and the other one hears nothing.
    process.kill(process.pid, "SIGKILL");
  }, LOOK_MS);
};

if (!isMainThread && parentPort !== null) watch(workerData as Watched);
