import type { Command } from "commander";
import { selectHypervisor } from "../../vmm/hypervisors/select.ts";
import type { Candidate } from "../../vmm/hypervisors/select.ts";
import { examine } from "../doctor.ts";
import type { Finding } from "../finding.ts";
import { EXIT_FAILURE } from "../../daemon/errors.ts";
import { table } from "../output.ts";
import { command, dataDirOption, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { dataDirectory } from "../../daemon/settings.ts";

interface DoctorOptions extends CommonOptions {
  readonly dataDir?: string;
}

/** `hearth doctor`: what this machine has, line by line; exit code 1 when Hearth cannot work on it. */
export const doctorCommand = (): Command =>
  command("doctor", "Examine this machine: can Hearth work here, and how", ["hearth doctor", "hearth doctor --json"])
    .addOption(dataDirOption())
    .action(run);

const run = async (options: DoctorOptions): Promise<void> => {
  const output = outputOf(options);
  const findings = [...(await examine(dataDirectory(options.dataDir, process.env))), ...(await hypervisors())];
  const failed = findings.filter((finding) => finding.level === "fail").length;
  output.data({ usable: failed === 0, findings });
  const { green, yellow, red, bold } = output.colours;
  const marks = { ok: green("ok  "), warn: yellow("warn"), fail: red("FAIL") };
  output.line(table(findings.map((finding) => [marks[finding.level], finding.name, finding.detail])));
  const advice = findings.filter((finding) => finding.fix !== null);
  if (advice.length > 0) output.line(`\n${bold("What to do")}`);
  for (const { name, fix } of advice) output.line(`  ${name}: ${fix}`);
  output.line(
    failed === 0
      ? `\n${green("Hearth can work here.")}`
      : `\n${red(`Hearth cannot work here: ${failed} must be put right.`)}`,
  );
  if (failed > 0) process.exitCode = EXIT_FAILURE;
};

/** What microVMs could run on, and what `auto` takes. */
const hypervisors = async (): Promise<Finding[]> => {
  try {
    const { hypervisor, candidates } = await selectHypervisor("auto");
    return [
      ...candidates.map(describe),
      { name: "chosen", level: "ok", detail: `${hypervisor.name} (--hypervisor names another)`, fix: null },
    ];
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return [{ name: "hypervisor", level: "fail", detail, fix: "Run ./hearth setup, then look again." }];
  }
};

/** One that cannot be used is no fault as long as another can. */
const describe = ({ name, probe }: Candidate): Finding => ({
  name,
  level: "ok",
  detail: probe.usable ? probe.detail : `not used: ${probe.reason}`,
  fix: null,
});
