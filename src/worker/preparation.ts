import type { Clock } from "../lib/clock.ts";
import { OPEN_FILES_MAX, PIDS_MAX, PREPARE_TIMEOUT_MS } from "../wire/limits.ts";
import { ConfigureField, FromShim, ToShim } from "../wire/shim-protocol.ts";
import type { Field } from "../wire/shim-protocol.ts";
import { BootError } from "./booted.ts";
import type { BootedMicroVm } from "./booted.ts";
import { preparedEnvironment } from "./environment.ts";
import type { RuntimeImage } from "./runtime-images.ts";
import { afterUsable, overText } from "./starts/usable-time.ts";

/**
 * Starts a runtime in a booted microVM that has its images, before anybody knows for which function: resolves when it
 * waits to be told. Throws `BootError`, with nothing left of the microVM, when it does not come to that.
 */
export const prepareRuntime = async (
  clock: Clock,
  booted: BootedMicroVm,
  name: string,
  runtime: RuntimeImage,
): Promise<BootedMicroVm> => {
  try {
    booted.vm.setBusy(true);
    await prepared(clock, booted, runtime);
    booted.vm.setBusy(false);
    return { ...booted, runtime: name };
  } catch (error) {
    await booted.vm.kill("its runtime could not be prepared");
    throw error;
  }
};

const prepared = async (clock: Clock, booted: BootedMicroVm, runtime: RuntimeImage): Promise<void> => {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (why: string): void => reject(new BootError(`microVM ${booted.vm.id} has no runtime ready: ${why}`));
  const timer = afterUsable(clock, {
    read: () => booted.vm.cpuTimes(),
    usableMsMax: PREPARE_TIMEOUT_MS,
    onOver: (why) => fail(`it did not ask for a function ${overText(why, PREPARE_TIMEOUT_MS)}`),
  });
  booted.link.own({
    frame: ({ type, payload }) => {
      if (type === FromShim.Prepared) return resolve();
      // Whatever it says now, no function has made it say so, and none should find it in its log.
      fail(`frame 0x${type.toString(16)} came, ${Buffer.from(payload.subarray(0, 500)).toString()}`);
      void booted.vm.kill("its runtime did not wait quietly");
    },
    closed: fail,
  });
  booted.link.send(ToShim.Prepare, preparation(booted, runtime));
  await promise.finally(() => timer[Symbol.dispose]());
};

const preparation = (booted: BootedMicroVm, runtime: RuntimeImage): Field[] => [
  ...runtime.drives.map((path): Field => [ConfigureField.RootDrive, deviceOf(booted, path)]),
  ...runtime.argv.map((argument): Field => [ConfigureField.Argument, argument]),
  ...preparedEnvironment(runtime.environment).map((variable): Field => [ConfigureField.Environment, variable]),
  // The function's own directory is not there yet.
  [ConfigureField.WorkingDirectory, "/"],
  [ConfigureField.PidsMax, PIDS_MAX],
  [ConfigureField.OpenFilesMax, OPEN_FILES_MAX],
];

const deviceOf = (booted: BootedMicroVm, path: string): string => {
  const device = booted.drives.get(path);
  if (device === undefined) throw new BootError(`microVM ${booted.vm.id} was booted without ${path}`);
  return device;
};
