/**
 * Draws the distributions of boot times, as the Firecracker paper does (NSDI'20, figures 5 and 6): the share of boots
 * done within a time, one after the other and 50 at a time.
 *
 *     ./hearth bench boot boot-50 qemu > figures.jsonl
 *     node bench/plot.ts figures.jsonl docs/boot-times.svg
 */
import { readFile, writeFile } from "node:fs/promises";

interface Series {
  readonly bench: string;
  readonly label: string;
  readonly colour: string;
  readonly timesMs: readonly number[];
}

/** A figure that others published for their own machine: a p50 to be drawn as a mark. */
interface Anchor {
  readonly label: string;
  readonly p50Ms: number;
}

const WIDTH = 900;
const PANEL_HEIGHT = 250;
const LEFT = 70;
const RIGHT = 30;
const TOP = 40;
const GAP = 75;
const PANELS: readonly {
  readonly title: string;
  readonly benches: readonly { readonly bench: string; readonly label: string; readonly colour: string }[];
  readonly anchors: readonly Anchor[];
}[] = [
  {
    title: "One after the other",
    benches: [
      { bench: "boot", label: "Hearth, jailed UML microVM, spawn → shim connected", colour: "#0b6e99" },
      { bench: "qemu", label: "QEMU microvm, emulated, start → init", colour: "#b35900" },
    ],
    anchors: [
      { label: "Firecracker, bare metal (paper): p50", p50Ms: 161 },
      { label: "QEMU, KVM on bare metal (paper): p50", p50Ms: 221 },
    ],
  },
  {
    title: "50 at a time",
    benches: [{ bench: "boot-50", label: "Hearth, 50 at a time on two CPUs", colour: "#0b6e99" }],
    anchors: [
      { label: "Firecracker, bare metal (paper): p50", p50Ms: 206 },
      { label: "QEMU, KVM on bare metal (paper): p50", p50Ms: 231 },
    ],
  },
];
const TICKS_MS = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

const scaleX = (ms: number): number => {
  const [first = 1, last = 10] = [TICKS_MS[0], TICKS_MS.at(-1)];
  const share = (Math.log(ms) - Math.log(first)) / (Math.log(last) - Math.log(first));
  return LEFT + Math.min(1, Math.max(0, share)) * (WIDTH - LEFT - RIGHT);
};

const scaleY = (top: number, share: number): number => top + (1 - share) * PANEL_HEIGHT;

const text = (x: number, y: number, content: string, extra = ""): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${extra}>${content.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</text>`;

const axes = (top: number, title: string): string[] => [
  text(LEFT, top - 12, title, 'font-weight="bold"'),
  ...TICKS_MS.flatMap((ms) => [
    `<line x1="${scaleX(ms).toFixed(1)}" x2="${scaleX(ms).toFixed(1)}" y1="${top}" y2="${top + PANEL_HEIGHT}" stroke="#ddd"/>`,
    text(scaleX(ms), top + PANEL_HEIGHT + 18, `${ms} ms`, 'text-anchor="middle"'),
  ]),
  ...[0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${scaleY(top, share)}" y2="${scaleY(top, share)}" stroke="#ddd"/>`,
    text(LEFT - 8, scaleY(top, share) + 4, `${share * 100} %`, 'text-anchor="end"'),
  ]),
];

/** The share of values up to each of them, as a line of steps. */
const curve = (top: number, { timesMs, colour }: Series): string => {
  const sorted = timesMs.toSorted((a, b) => a - b);
  const points = sorted.map((ms, i) => `${scaleX(ms).toFixed(1)},${scaleY(top, (i + 1) / sorted.length).toFixed(1)}`);
  return `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.join(" ")}"/>`;
};

const anchorMark = (top: number, { label, p50Ms }: Anchor, index: number): string[] => [
  `<circle cx="${scaleX(p50Ms).toFixed(1)}" cy="${scaleY(top, 0.5)}" r="4" fill="none" stroke="#555" stroke-width="1.5"/>`,
  text(scaleX(p50Ms) + 8, scaleY(top, 0.5) + (index === 0 ? -8 : 16), label, 'fill="#555" font-size="11"'),
];

const legend = (top: number, series: readonly Series[]): string[] =>
  series.map((one, i) =>
    text(WIDTH - RIGHT - 8, top + PANEL_HEIGHT - 10 - 16 * i, one.label, `text-anchor="end" fill="${one.colour}"`),
  );

const svg = (samples: ReadonlyMap<string, readonly number[]>): string => {
  const body = PANELS.flatMap(({ title, benches, anchors }, panel) => {
    const top = TOP + panel * (PANEL_HEIGHT + GAP);
    const series = benches.flatMap((one): Series[] => {
      const timesMs = samples.get(one.bench);
      return timesMs === undefined ? [] : [{ ...one, timesMs }];
    });
    return [
      ...axes(top, title),
      ...anchors.flatMap((anchor, i) => anchorMark(top, anchor, i)),
      ...series.map((one) => curve(top, one)),
      ...legend(top, series),
    ];
  });
  const height = TOP + PANELS.length * (PANEL_HEIGHT + GAP) - GAP / 2;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="white"/>`,
    ...body,
    "</svg>\n",
  ].join("\n");
};

const main = async (input: string | undefined, output: string | undefined): Promise<void> => {
  if (input === undefined || output === undefined) throw new Error("Usage: node bench/plot.ts figures.jsonl plot.svg");
  const samples = new Map<string, readonly number[]>();
  for (const line of (await readFile(input, "utf8")).split("\n")) {
    if (!line.startsWith("{")) continue;
    const { bench, samplesMs } = JSON.parse(line) as { bench: string; samplesMs?: number[] };
    if (samplesMs !== undefined) samples.set(bench, samplesMs);
  }
  await writeFile(output, svg(samples));
};

await main(process.argv[2], process.argv[3]);
