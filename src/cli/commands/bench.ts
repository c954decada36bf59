import { resolve } from "node:path";
import type { Command } from "commander";
import { measureAgainst, ROUNDS_DEFAULT } from "../../../bench/against.ts";
import { BENCHES } from "../../../bench/benches.ts";
import type { Bench } from "../../../bench/benches.ts";
import { machineFacts } from "../../../bench/machine.ts";
import { runBenches } from "../../../bench/run.ts";
import type { Result } from "../../../bench/result.ts";
import { judge } from "../../../bench/targets.ts";
import type { Judged } from "../../../bench/targets.ts";
import { selectHypervisor } from "../../vmm/hypervisors/select.ts";
import { EXIT_FAILURE, usageError } from "../../daemon/errors.ts";
import { table } from "../output.ts";
import type { Output } from "../output.ts";
import { command, outputOf, wholeNumber } from "../program.ts";
import type { CommonOptions } from "../program.ts";

const ROUNDS_MAX = 100;

/** `hearth bench`: measures, and asserts nothing. One JSON line a result when piped, a table on a terminal. */
export const benchCommand = (): Command =>
  command("bench", "Measure this machine: boots, memory, invocations, and peers beside them", [
    "hearth bench",
    "hearth bench boot idle-memory",
    "hearth bench >> figures.jsonl",
    "hearth bench density-512 density-128",
    "hearth bench boot warm-node --against ../hearth-before   # in turn with another checkout that is set up",
  ])
    .argument("[name...]", `which of: ${BENCHES.map((bench) => bench.name).join(", ")}`)
    .option(
      "--against <directory>",
      "another checkout, set up: each bench runs here and there in turn, with ratios here/there",
    )
    .option("--rounds <number>", "how many pairs with --against", wholeNumber(1, ROUNDS_MAX), ROUNDS_DEFAULT)
    .action(run);

interface BenchOptions extends CommonOptions {
  readonly against?: string;
  readonly rounds: number;
}

const run = async (names: readonly string[], options: BenchOptions): Promise<void> => {
  const unknown = names.filter((name) => BENCHES.every((bench) => bench.name !== name));
  if (unknown.length > 0) {
    throw usageError(
      `There is no bench ${unknown.join(", ")}.`,
      `There are ${BENCHES.map((bench) => bench.name).join(", ")}.`,
    );
  }
  // Figures that go into a file are for machines.
  const output = outputOf({ json: options.json === true || !process.stdout.isTTY });
  const { hypervisor } = await selectHypervisor("auto");
  const machine = await machineFacts(hypervisor.name);
  output.line(
    `${machine.cpu}, ${machine.cpus} CPUs, ${machine.memoryMb} MB, Linux ${machine.kernel}, ${machine.hypervisor}, commit ${machine.commit ?? "none"}, load ${machine.load}\n`,
  );
  const wanted =
    names.length === 0
      ? BENCHES.filter((bench) => bench.needs !== "crowd")
      : BENCHES.filter((bench) => names.includes(bench.name));
  if (options.against !== undefined) return runAgainst(resolve(options.against), wanted, options.rounds, output);
  const rows: string[][] = [];
  const results = new Map<string, Result>();
  for await (const { bench, result } of runBenches(wanted)) {
    const failed = result instanceof Error;
    if (!failed && result !== null) results.set(bench.name, result);
    if (failed) process.exitCode = EXIT_FAILURE;
    const told = failed ? { error: result.message } : (result ?? { skipped: "not available on this machine" });
    output.data({ bench: bench.name, about: bench.about, atMs: Date.now(), ...told, machine });
    rows.push([bench.name, bench.about, figures(told)]);
    output.note(`${bench.name} …`);
  }
  output.line(table(rows));
  const judged = judge(results);
  if (judged.length > 0)
    output.line(`\n${table([["bench", "figure", "measured", "limit", "aim", ""], ...judged.map(targetRow)])}`);
};

/** The same benches here and in another checkout in turn: one JSON line a figure when piped, a table on a terminal. */
const runAgainst = async (other: string, wanted: readonly Bench[], rounds: number, output: Output): Promise<void> => {
  const rows = [["bench", "figure", "here", "there", "ratio", "from", "to"]];
  for (const { name } of wanted) {
    output.note(`${name} …`);
    for (const { figure, here, there, ratio, ratioMin, ratioMax } of await measureAgainst(other, name, rounds)) {
      output.data({ bench: name, figure, against: other, rounds, here, there, ratio, ratioMin, ratioMax });
      rows.push([name, figure, ...[here, there, ratio, ratioMin, ratioMax].map(String)]);
    }
  }
  output.line(table(rows));
};

const VERDICTS = { aim: "aim reached", limit: "within the limit", missed: "MISSED", "not measured": "not measured" };

const targetRow = ({ bench, figure, measured, limit, aim, lower, verdict }: Judged): string[] => [
  bench,
  figure,
  String(measured ?? "–"),
  `${lower ? "≤" : "≥"} ${limit}`,
  `${lower ? "≤" : "≥"} ${aim}`,
  VERDICTS[verdict],
];

const figures = (result: Result): string =>
  Object.entries(result)
    .filter(([, value]) => typeof value !== "object")
    .map(([name, value]) => `${name} ${String(value)}`)
    .join("  ");
