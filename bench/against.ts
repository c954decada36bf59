/*
 * Two checkouts measured in turn on one machine: A B A B …, each run in processes of its own. What else the machine does
 * then meets both alike, and a ratio of neighbours in time says what two figures an hour apart do not.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { percentile, round } from "./statistics.ts";

const HERE = fileURLToPath(new URL("..", import.meta.url));
export const ROUNDS_DEFAULT = 3;
const OUTPUT_BYTES_MAX: number = 64 * 2 ** 20;
const THREE_DIGITS = 1_000;

/** The numbers of one run of one bench. */
type Figures = ReadonlyMap<string, number>;

/** One figure of a bench in both checkouts, as medians, and the median of the ratios of neighbouring runs. */
export interface Compared {
  readonly figure: string;
  readonly here: number;
  readonly there: number;
  readonly ratio: number;
  readonly ratioMin: number;
  readonly ratioMax: number;
}

/** Runs one bench in a checkout. Throws when it is not there, or cannot be measured. */
const measure = async (checkout: string, bench: string): Promise<Figures> => {
  const main = join(checkout, "src/cli/main.ts");
  const options = { cwd: checkout, maxBuffer: OUTPUT_BYTES_MAX };
  const { stdout } = await promisify(execFile)(process.execPath, [main, "bench", "--json", bench], options);
  const line = stdout.split("\n").find((text) => text.startsWith("{"));
  const result = JSON.parse(line ?? "{}") as Readonly<Record<string, unknown>>;
  if (result["bench"] !== bench) throw new Error(`the bench ${bench} of ${checkout} gave no result: ${stdout}`);
  const numbers = Object.entries(result).filter(([name]) => name !== "atMs" && name !== "n");
  return new Map(numbers.flatMap(([name, value]) => (typeof value === "number" ? [[name, value] as const] : [])));
};

const threeDigits = (value: number): number => Math.round(value * THREE_DIGITS) / THREE_DIGITS;

const median = (of: readonly number[]): number => percentile(of, 1 / 2);

/** What pairs of runs say of every figure that both checkouts have. A ratio is here / there. */
export const compare = (pairs: readonly { readonly here: Figures; readonly there: Figures }[]): Compared[] =>
  [...(pairs[0]?.here.keys() ?? [])].flatMap((figure) => {
    const values = pairs.flatMap(({ here, there }) => {
      const [mine, other] = [here.get(figure), there.get(figure)];
      return mine === undefined || other === undefined ? [] : [{ mine, other }];
    });
    const ratios = values.filter(({ other }) => other !== 0).map(({ mine, other }) => mine / other);
    if (ratios.length === 0) return [];
    return [
      {
        figure,
        here: round(median(values.map(({ mine }) => mine))),
        there: round(median(values.map(({ other }) => other))),
        ratio: threeDigits(median(ratios)),
        ratioMin: threeDigits(Math.min(...ratios)),
        ratioMax: threeDigits(Math.max(...ratios)),
      },
    ];
  });

/** Measures a bench here and in another checkout, which must be set up (`./hearth setup`), in turn. */
export const measureAgainst = async (other: string, bench: string, rounds: number): Promise<Compared[]> => {
  const pairs: { here: Figures; there: Figures }[] = [];
  for (let n = 0; n < rounds; n += 1) {
    // Whoever comes first finds caches cold, or the CPU cool: that is not always the same one.
    if (n % 2 === 0) {
      const here = await measure(HERE, bench);
      pairs.push({ here, there: await measure(other, bench) });
    } else {
      const there = await measure(other, bench);
      pairs.push({ here: await measure(HERE, bench), there });
    }
  }
  return compare(pairs);
};
