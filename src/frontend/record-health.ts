import type { CodeStore } from "../store/code.ts";
import type { FunctionRecord } from "../store/store.ts";

/**
 * A record as it is shown and used: Failed, with the reason, while its code cannot be used. The stored record stays as it
 * is, so that all is well again as soon as the code is back.
 */
export const withHealth = (code: Pick<CodeStore, "problem">, record: FunctionRecord): FunctionRecord => {
  if (record.state !== "Active") return record;
  const problem = [record.code, ...record.layers].map(({ digest }) => code.problem(digest)).find((why) => why !== null);
  if (problem === undefined) return record;
  return { ...record, state: "Failed", stateReason: problem, stateReasonCode: "InternalError" };
};
