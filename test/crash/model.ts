import assert from "node:assert/strict";
import { GetFunctionCommand, ListVersionsByFunctionCommand, ResourceNotFoundException } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";

/** A numbered version; `number` is null while the answer that would have told it was never heard. */
export interface Version {
  readonly number: number | null;
  readonly sha256: string;
}

/** A function as it stands in the store: its code, by the archive's hash in base64, and its versions. null: there is none. */
export type FunctionState = { readonly sha256: string; readonly versions: readonly Version[] } | null;

const fits = (expected: FunctionState, actual: FunctionState, lastNumber: number): boolean => {
  if (expected === null || actual === null) return expected === actual;
  if (expected.sha256 !== actual.sha256 || expected.versions.length !== actual.versions.length) return false;
  return expected.versions.every(({ number, sha256 }, at) => {
    const found = actual.versions[at];
    const known = number === null ? Number(found?.number) > lastNumber : found?.number === number;
    return known && found?.sha256 === sha256;
  });
};

/**
 * What was promised about one function. A change whose answer never came may have been made or not, in each of its
 * steps; one that was answered has been made.
 */
export class Promised {
  readonly name: string;
  #possible: readonly FunctionState[] = [null];
  /** Highest version number there ever was: none is given twice. */
  #lastNumber = 0;

  constructor(name: string) {
    this.name = name;
  }

  /** The state there is, when that is known for certain: no change is under way. */
  get state(): FunctionState {
    assert.equal(this.#possible.length, 1, `${this.name}: a change is under way`);
    return this.#possible[0] ?? null;
  }

  /** A change begins that leads through these states. */
  begin(...through: readonly FunctionState[]): void {
    this.#possible = [this.state, ...through];
  }

  /** It was answered well: this is how the function is now. */
  done(state: FunctionState): void {
    this.#possible = [state];
    this.#count(state);
  }

  /** It was refused: nothing has changed. */
  refused(): void {
    this.#possible = this.#possible.slice(0, 1);
  }

  /** A number that was given to a version now. Throws when it was given before. */
  given(number: number): void {
    assert.ok(number > this.#lastNumber, `${this.name}: version ${number} was given out twice`);
    this.#lastNumber = number;
  }

  /** Compares with what a Hearth that started again says. Throws when something promised is not so. */
  async check(client: LambdaClient): Promise<void> {
    const actual = await stateOf(client, this.name);
    const isPromised = this.#possible.some((state) => fits(state, actual, this.#lastNumber));
    assert.ok(isPromised, `${this.name} is ${JSON.stringify(actual)}, promised was ${JSON.stringify(this.#possible)}`);
    this.done(actual);
  }

  #count(state: FunctionState): void {
    for (const { number } of state?.versions ?? []) this.#lastNumber = Math.max(this.#lastNumber, number ?? 0);
  }
}

const stateOf = async (client: LambdaClient, name: string): Promise<FunctionState> => {
  try {
    const { Configuration } = await client.send(new GetFunctionCommand({ FunctionName: name }));
    const { Versions = [] } = await client.send(new ListVersionsByFunctionCommand({ FunctionName: name }));
    assert.equal(Configuration?.State, "Active", `${name} is settled after a start`);
    assert.equal(Configuration.LastUpdateStatus, "Successful", `${name} is settled after a start`);
    const versions = Versions.filter(({ Version }) => Version !== "$LATEST").map(({ Version, CodeSha256 = "" }) => ({
      number: Number(Version),
      sha256: CodeSha256,
    }));
    return { sha256: Configuration.CodeSha256 ?? "", versions };
  } catch (error) {
    if (error instanceof ResourceNotFoundException) return null;
    throw error;
  }
};
