import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import type { Store } from "../../src/store/store.ts";
import { eventually } from "../functional/hearth.ts";
import { functionInput, startHarness, temporaryDirectory } from "./harness.ts";
import type { Harness } from "./harness.ts";

/** A store that refuses a function's new state, as on a full disk, so many times; then it is well again. */
class RefusingStore {
  #left: number;

  constructor(refusals: number) {
    this.#left = refusals;
  }

  get refusalsLeft(): number {
    return this.#left;
  }

  readonly before = (store: Store): Store => {
    const updateFunction: Store["updateFunction"] = async (...args) => {
      if (this.#left > 0) {
        this.#left -= 1;
        throw Object.assign(new Error("database or disk is full"), { errcode: 13 });
      }
      return store.updateFunction(...args);
    };
    return new Proxy(store, {
      get: (target, key) => {
        if (key === "updateFunction") return updateFunction;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  };
}

const NAME = "made";

const stateOf = async ({ client }: Harness): Promise<string | undefined> => {
  const { State } = await client.send(new lambda.GetFunctionConfigurationCommand({ FunctionName: NAME }));
  return State;
};

const becomesActive = (harness: Harness): Promise<true> =>
  eventually("the function is Active", async () => ((await stateOf(harness)) === "Active" ? true : null));

describe("a function's state that the store refuses to take", () => {
  it("is stored again until it is taken, without a restart", async () => {
    const store = new RefusingStore(3);
    await using harness = await startHarness({ before: store.before });
    await harness.client.send(new lambda.CreateFunctionCommand(await functionInput(NAME)));
    assert.equal(await stateOf(harness), "Pending");
    await becomesActive(harness);
    assert.equal(store.refusalsLeft, 0);
    await harness.client.send(new lambda.InvokeCommand({ FunctionName: NAME, Payload: "1" }));
  });

  it("holds up neither the end nor the next start, which goes on with it", async () => {
    const directory = await temporaryDirectory();
    try {
      {
        const store = new RefusingStore(Infinity);
        await using first = await startHarness({ before: store.before, directory });
        await first.client.send(new lambda.CreateFunctionCommand(await functionInput(NAME)));
        assert.equal(await stateOf(first), "Pending");
      }
      await using second = await startHarness({ before: new RefusingStore(1).before, directory });
      await becomesActive(second);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("does not come back with a function that is deleted meanwhile", async () => {
    const store = new RefusingStore(2);
    await using harness = await startHarness({ before: store.before });
    await harness.client.send(new lambda.CreateFunctionCommand(await functionInput(NAME)));
    await harness.client.send(new lambda.DeleteFunctionCommand({ FunctionName: NAME }));
    await eventually("it was tried again", async () => (store.refusalsLeft === 0 ? true : null));
    await harness.client.send(new lambda.CreateFunctionCommand(await functionInput(NAME)));
    await becomesActive(harness);
  });
});
