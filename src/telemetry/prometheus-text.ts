/** One sample of a text in the Prometheus exposition format. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Metric names and label names ("Data model" in Prometheus's documentation). */
const SAMPLE = /^(?<name>[a-zA-Z_:][\w:]*)(?:\{(?<labels>.*)\})? (?<value>[-+\w.]+)$/;
const LABEL = /^(?<name>[a-zA-Z_]\w*)="(?<value>(?:[^"\\]|\\[\\"n])*)"(?:,|$)/;
const ESCAPES: Readonly<Record<string, string>> = { "\\\\": "\\", '\\"': '"', "\\n": "\n" };

const numberOf = (text: string): number => {
  if (/^[+]?Inf$/.test(text)) return Number.POSITIVE_INFINITY;
  if (text === "-Inf") return Number.NEGATIVE_INFINITY;
  return text === "Nan" || text === "NaN" ? Number.NaN : Number(text);
};

const labelsOf = (text: string, line: string): Record<string, string> => {
  const labels: Record<string, string> = {};
  for (let rest = text; rest !== "";) {
    const match = LABEL.exec(rest);
    const name = match?.groups?.["name"];
    if (match === null || name === undefined) throw new Error(`no label can be read in "${line}"`);
    labels[name] = (match.groups?.["value"] ?? "").replaceAll(/\\[\\"n]/g, (escape) => ESCAPES[escape] ?? escape);
    rest = rest.slice(match[0].length);
  }
  return labels;
};

/**
 * The samples of a text as `MetricsRegistry.text` makes it (text format 0.0.4, "Exposition formats" in Prometheus's
 * documentation), without time stamps. Throws when a line is none.
 */
export const parseSamples = (text: string): Sample[] => {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const groups = SAMPLE.exec(line)?.groups;
    const value = numberOf(groups?.["value"] ?? "");
    if (
      groups?.["name"] === undefined ||
      (Number.isNaN(value) && groups["value"] !== "NaN" && groups["value"] !== "Nan")
    ) {
      throw new Error(`no sample can be read in "${line}"`);
    }
    samples.push({ name: groups["name"], labels: labelsOf(groups["labels"] ?? "", line), value });
  }
  return samples;
};
