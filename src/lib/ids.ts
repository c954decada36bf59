/** Identifiers are a parameter, so that a run with the same seed makes the same ones again. */
import { randomUUID } from "node:crypto";

export interface Ids {
  /** A UUID, version 4, in lower case. */
  uuid(): string;
}

export const systemIds: Ids = { uuid: () => randomUUID() };

const HEX = 16;
const VARIANTS = "89ab";

/** UUIDs out of `random` (0 up to 1). For tests and simulations: whoever knows the seed knows them all. */
export const seededIds = (random: () => number): Ids => {
  const digits = (count: number): string =>
    Array.from({ length: count }, () => Math.floor(random() * HEX).toString(HEX)).join("");
  return {
    uuid: () => {
      const variant = VARIANTS.charAt(Math.floor(random() * VARIANTS.length));
      return `${digits(8)}-${digits(4)}-4${digits(3)}-${variant}${digits(3)}-${digits(12)}`;
    },
  };
};
