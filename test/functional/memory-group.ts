import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const V1 = "/sys/fs/cgroup/memory";
const V2 = "/sys/fs/cgroup";
const REMOVE_MS_MAX = 10_000;

/** A control group with a limit of memory, as a container has one. */
export class MemoryGroup implements AsyncDisposable {
  readonly directory: string;
  readonly #isV1: boolean;

  constructor(limitBytes: number) {
    this.#isV1 = existsSync(`${V1}/memory.limit_in_bytes`);
    this.directory = `${this.#isV1 ? V1 : V2}/hearth-test-${process.pid}-${Date.now()}`;
    mkdirSync(this.directory);
    writeFileSync(`${this.directory}/${this.#isV1 ? "memory.limit_in_bytes" : "memory.max"}`, String(limitBytes));
  }

  /** What to put before a command so that it runs in the group. */
  get launcher(): readonly string[] {
    return ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', this.directory];
  }

  /** How often the kernel killed a process in it because of its limit. */
  get kills(): number {
    const text = readFileSync(`${this.directory}/${this.#isV1 ? "memory.oom_control" : "memory.events"}`, "utf8");
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1]);
  }

  /** Once nothing runs in it any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const deadline = Date.now() + REMOVE_MS_MAX; ; await sleep(20)) {
      try {
        // What Hearth made below it for its microVMs.
        for (const below of [`${this.directory}/hearth`, `${this.directory}/hearth-monitor`]) {
          if (existsSync(below)) rmdirSync(below);
        }
        return rmdirSync(this.directory);
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
  }
}
