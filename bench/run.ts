import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BootOptions } from "../src/worker/booted.ts";
import type { Bench } from "./benches.ts";
import { bootOptions } from "./boot-options.ts";
import { startHearth } from "./hearth.ts";
import type { InvokeParts } from "./invoke.ts";
import type { Result } from "./result.ts";

/** Enough for the cold starts that follow one another in a bench. */
const POOL = 8;

export interface Outcome {
  readonly bench: Bench;
  /** null: it cannot be measured here. An error: it went wrong. */
  readonly result: Result | Error | null;
}

/** Runs benches one after the other, making what they need once: bare microVMs, or a Hearth. */
export async function* runBenches(benches: readonly Bench[]): AsyncGenerator<Outcome> {
  await using owned = new AsyncDisposableStack();
  const scratch = await mkdtemp(join(tmpdir(), "hearth-bench-"));
  // MicroVMs are users of their own and must get to their run directories below.
  await chmod(scratch, 0o711);
  owned.defer(() => rm(scratch, { recursive: true, force: true }));
  let boot: BootOptions | null = null;
  let parts: InvokeParts | null = null;
  for (const bench of benches) {
    try {
      switch (bench.needs) {
        case "microvm":
          boot ??= await bootOptions(scratch);
          yield { bench, result: await bench.run(boot) };
          break;
        case "hearth":
          parts ??= await invokeParts(owned, scratch);
          yield { bench, result: await bench.run(parts) };
          break;
        case "crowd":
          parts ??= await invokeParts(owned, scratch);
          yield { bench, result: await bench.run(await mkdtemp(join(scratch, "crowd-")), parts.pooled) };
          break;
        case "nothing":
          yield { bench, result: await bench.run() };
          break;
      }
    } catch (error) {
      yield { bench, result: error instanceof Error ? error : new Error(String(error)) };
    }
  }
}

const invokeParts = async (owned: AsyncDisposableStack, scratch: string): Promise<InvokeParts> => {
  const pooled = owned.use(await startHearth(join(scratch, "pooled"), "--pool", String(POOL)));
  const unpooled = owned.use(await startHearth(join(scratch, "unpooled"), "--pool", "0"));
  return { pooled: pooled.client, unpooled: unpooled.client, unpooledPid: unpooled.pid, scratch };
};
