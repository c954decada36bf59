import { spawn } from "node:child_process";
import { once } from "node:events";

/** How many processes take CPU beside what is measured. */
export const SPINNERS = 3;
/** A spinner ends by itself after this: nothing of a bench that was killed stays. */
const SPIN_MS_MAX = 600_000;
const SPIN = `const endMs = Date.now() + ${SPIN_MS_MAX}; process.send("spins"); while (Date.now() < endMs);`;

/** Starts processes that do nothing but take CPU; resolves when all of them do. Disposing ends them. */
export const spin = async (count: number = SPINNERS): Promise<AsyncDisposable> => {
  await using started = new AsyncDisposableStack();
  const spinning: Promise<unknown>[] = [];
  for (let n = 0; n < count; n += 1) {
    const child = spawn(process.execPath, ["-e", SPIN], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    const ended = once(child, "exit");
    started.defer(async () => {
      child.kill("SIGKILL");
      await ended;
    });
    spinning.push(once(child, "message"));
  }
  await Promise.all(spinning);
  return started.move();
};
