import type { AssembleHearth } from "./hearth.ts";
import { CliError } from "./errors.ts";

/** Puts the roles together in one process. */
export const assembleHearth: AssembleHearth = () =>
  Promise.reject(new CliError("The roles are not put together yet.", "This checkout has only the command line."));
