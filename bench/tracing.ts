import { once } from "node:events";
import { createServer } from "node:http";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Result } from "./result.ts";
import { startHearth } from "./hearth.ts";
import type { BenchHearth } from "./hearth.ts";
import { CLIENTS, invokeMany, warm } from "./invoke.ts";
import { percentile, round, timed } from "./statistics.ts";

const ROUNDS = 7;
const CALLS_PER_ROUND = 500;
/** USER_HZ: the unit of CPU times in /proc (proc_pid_stat(5)). */
const MS_PER_TICK = 10;

/** CPU time that a process has used, in ms. */
const cpuMs = async (pid: number): Promise<number> => {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
};

interface Round {
  readonly perSecond: number;
  readonly cpuUs: number;
}

const measure = async (hearth: BenchHearth, name: string): Promise<Round> => {
  const before = await cpuMs(hearth.pid);
  const tookMs = await timed(() => invokeMany(hearth.client, name, CALLS_PER_ROUND));
  const cpuUs = (((await cpuMs(hearth.pid)) - before) * 1000) / CALLS_PER_ROUND;
  return { perSecond: (CALLS_PER_ROUND * 1000) / tookMs, cpuUs };
};

/** Warm invokes with traces off and on; the two take turns, so that noise is shared. */
export const tracing = async (): Promise<Result> => {
  await using owned = new AsyncDisposableStack();
  const scratch = await mkdtemp(join(tmpdir(), "hearth-tracing-"));
  owned.defer(() => rm(scratch, { recursive: true, force: true }));
  const receiver = createServer((request, response) => void request.resume().on("end", () => response.end()));
  receiver.listen(0, "127.0.0.1");
  await once(receiver, "listening");
  owned.defer(() => void receiver.close());
  const address = receiver.address();
  const port = address === null || typeof address === "string" ? 0 : address.port;
  const off = owned.use(await startHearth(join(scratch, "off"), "--pool", "0"));
  const on = owned.use(await startHearth(join(scratch, "on"), "--pool", "0", "--otlp", `http://127.0.0.1:${port}`));
  const name = await warm(off.client);
  await warm(on.client);
  const rounds: { readonly off: Round[]; readonly on: Round[] } = { off: [], on: [] };
  for (let n = 0; n < ROUNDS; n += 1) {
    rounds.off.push(await measure(off, name));
    rounds.on.push(await measure(on, name));
  }
  const median = (of: readonly Round[], key: keyof Round): number =>
    percentile(
      of.map((one) => one[key]),
      0.5,
    );
  const [perSecondOff, perSecondOn] = [median(rounds.off, "perSecond"), median(rounds.on, "perSecond")];
  return {
    n: ROUNDS * CALLS_PER_ROUND,
    clients: CLIENTS,
    perSecondOff: round(perSecondOff),
    perSecondOn: round(perSecondOn),
    onToOff: round(perSecondOn / perSecondOff),
    cpuUsOff: round(median(rounds.off, "cpuUs")),
    cpuUsOn: round(median(rounds.on, "cpuUs")),
  };
};
