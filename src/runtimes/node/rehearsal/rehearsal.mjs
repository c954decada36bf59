/**
 * Loaded by a runtime that waits for its function, as it will load that: so the module loader has done it once, and
 * the modules are there with which functions that call others begin.
 */
import "node:https";
import "node:fs/promises";
import "node:util";

export const handler = async () => null;
