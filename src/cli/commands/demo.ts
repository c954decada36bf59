import type { Command } from "commander";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lambdaClient } from "../client.ts";
import { tellStory } from "../demo.ts";
import { EXIT_FAILURE } from "../../daemon/errors.ts";
import { command, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { hostOnLoopback } from "../../daemon/run-hearth.ts";
import { REGION_DEFAULT } from "../../daemon/settings.ts";

/** `hearth demo`: the whole of Hearth in one go, on a free port and a data directory that go away again. */
export const demoCommand = (): Command =>
  command("demo", "See Hearth work: deploy, invoke, fail, time out, then clean up", ["hearth demo"]).action(run);

const run = async (options: CommonOptions): Promise<void> => {
  const output = outputOf(options);
  await using cleaning = new AsyncDisposableStack();
  const stop = (): void => void cleaning.disposeAsync().then(() => process.exit(EXIT_FAILURE));
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  const dataDir = await mkdtemp(join(tmpdir(), "hearth-demo-"));
  cleaning.defer(() => rm(dataDir, { recursive: true, force: true }));
  const startedMs = performance.now();
  const hosted = cleaning.use(
    await hostOnLoopback(dataDir, null, process.env["HEARTH_DEBUG"] === undefined ? "error" : "debug"),
  );
  const { endpoint, credentials, hearth } = hosted;
  const { bold, dim, green, red } = output.colours;
  output.line(
    `${bold("Hearth")} serves the Lambda API at ${endpoint}, ${Math.round(performance.now() - startedMs)} ms after its start`,
  );
  output.line(dim(`microVMs by ${hearth.hypervisor.name}: ${hearth.hypervisor.reason}`));
  const client = lambdaClient({ endpoint, credentials, dataDir, region: REGION_DEFAULT });
  cleaning.defer(() => client.destroy());
  const story = await tellStory(client, output, join(dataDir, "bootstrap"));
  await cleaning.disposeAsync();
  const seconds = (performance.now() - startedMs) / 1000;
  output.data({ ok: story.failures.length === 0, seconds, hypervisor: hearth.hypervisor, ...story });
  output.line();
  for (const failure of story.failures) output.line(red(`✗ ${failure}`));
  if (story.failures.length > 0) process.exitCode = EXIT_FAILURE;
  else
    output.line(
      `${green("✓ All as it should be")}, in ${seconds.toFixed(1)} s. Nothing is left running. Next: hearth up`,
    );
};
