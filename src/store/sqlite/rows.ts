import type { SQLOutputValue } from "node:sqlite";
import type { EventRecord } from "../store.ts";
import { invalidParameter } from "../../wire/errors.ts";

export type Row = Record<string, SQLOutputValue>;

const LATEST = "$LATEST";

/** 0 for $LATEST, the number for a numbered version, null for anything else (which is then no version). */
export const versionNumber = (version: string): number | null => {
  if (version === LATEST) return 0;
  if (!/^[1-9]\d{0,14}$/.test(version)) return null;
  return Number(version);
};

/** The opposite of `versionNumber`. */
export const nameOf = (number: number): string => (number === 0 ? LATEST : String(number));

export const eventOf = (row: Row): EventRecord => {
  const payload = row["payload"];
  const traceId = row["trace_id"];
  if (!(payload instanceof Uint8Array)) throw new TypeError("The payload of a queued event is not a blob");
  return {
    eventId: String(row["event_id"]),
    accountId: String(row["account_id"]),
    functionName: String(row["function_name"]),
    qualifier: String(row["qualifier"]),
    payload,
    acceptedAtMs: Number(row["accepted_at_ms"]),
    attempts: Number(row["attempts"]),
    throttles: Number(row["throttles"]),
    traceId: traceId === null || traceId === undefined ? null : String(traceId),
  };
};

/** The last item of the page before: the next page starts after it, whatever is added or removed meanwhile. */
export interface Position {
  readonly name: string;
  readonly number: number;
}

export const START: Position = { name: "", number: -1 };

export const encodeMarker = (position: Position): string =>
  Buffer.from(JSON.stringify([position.name, position.number])).toString("base64url");

/** Throws InvalidParameterValueException for a text that is no marker of ours. */
export const decodeMarker = (marker: string | null): Position => {
  if (marker === null) return START;
  try {
    const value: unknown = JSON.parse(Buffer.from(marker, "base64url").toString("utf8"));
    if (Array.isArray(value) && typeof value[0] === "string" && Number.isSafeInteger(value[1])) {
      return { name: value[0], number: Number(value[1]) };
    }
  } catch {
    // Not JSON: answered below like every other text that is no marker.
  }
  throw invalidParameter("Invalid Marker: pass the NextMarker of the page before, unchanged.");
};
