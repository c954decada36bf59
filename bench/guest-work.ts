import { readFileSync } from "node:fs";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import { tasksBelow } from "../src/vmm/hypervisors/uml/processes.ts";
import { deploy } from "../src/cli/deploy.ts";
import type { Result } from "./result.ts";
import type { InvokeBench } from "./invoke.ts";
import { nodeFunction, WARM_UP_CALLS } from "./invoke.ts";
import { round } from "./statistics.ts";

const CALLS = 200;

/** Says what its process has taken of its kernel so far (getrusage(2)). */
const HANDLER = "export const handler = async () => process.resourceUsage();";

/**
 * How often processes of guests stopped for their kernels: for a system call, a page fault, a signal, and for what their kernel
 * has their host process do. Each is a hand-over between two processes of the host, which is what work in a UML guest costs.
 */
const stopsBelow = (pid: number): number =>
  tasksBelow(pid).reduce((sum, task) => {
    try {
      const status = readFileSync(`/proc/${String(task)}/status`, "utf8");
      if (!status.startsWith("Name:\tuml-userspace\n")) return sum;
      return sum + Number(/^voluntary_ctxt_switches:\t(\d+)/m.exec(status)?.[1] ?? 0);
    } catch {
      // It ended meanwhile.
      return sum;
    }
  }, 0);

/** Page faults of the function's process so far. */
const faultsOf = async (client: LambdaClient, name: string): Promise<number> => {
  const answer = await client.send(new InvokeCommand({ FunctionName: name, Payload: Buffer.from("{}") }));
  const usage = JSON.parse(Buffer.from(answer.Payload ?? []).toString()) as Record<string, number>;
  return (usage["minorPageFault"] ?? 0) + (usage["majorPageFault"] ?? 0);
};

/** Node in a guest: what its start and a warm invocation make its kernel do. In a Hearth without a pool, where nothing else runs. */
export const guestWork: InvokeBench = async ({ unpooled, unpooledPid }): Promise<Result> => {
  const name = "guest-work";
  await deploy(unpooled, await nodeFunction(name, HANDLER));
  const before = stopsBelow(unpooledPid);
  const startFaults = await faultsOf(unpooled, name);
  const startStops = stopsBelow(unpooledPid) - before;
  let faultsBefore = startFaults;
  for (let n = 0; n < WARM_UP_CALLS; n += 1) faultsBefore = await faultsOf(unpooled, name);
  const stopsBefore = stopsBelow(unpooledPid);
  let faults = faultsBefore;
  for (let n = 0; n < CALLS; n += 1) faults = await faultsOf(unpooled, name);
  return {
    startStops,
    startPageFaults: startFaults,
    warmStops: round((stopsBelow(unpooledPid) - stopsBefore) / CALLS),
    warmPageFaults: round((faults - faultsBefore) / CALLS),
  };
};
