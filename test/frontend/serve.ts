import { startHarness } from "./harness.ts";

/*
 * A Frontend in a process of its own, to be killed: `node serve.ts DIRECTORY` prints its endpoint. Nothing runs
 * the queue, so that what was accepted is still there afterwards.
 */
const [directory] = process.argv.slice(2);
if (directory === undefined) throw new Error("Name the data directory.");
const { endpoint } = await startHarness({ directory, asyncParallel: 0, auth: "none" });
process.stdout.write(`${endpoint}\n`);
