import type { Clock } from "../lib/clock.ts";
import { TURN_MS_MAX, TURN_NOTED_MS, TurnMeter } from "../lib/turn-meter.ts";
import type { LongIteration, Turns } from "../lib/turn-meter.ts";
import type { Logger, MetricsRegistry } from "../telemetry/index.ts";
import { startLoopClock } from "../vmm/loop-clock.ts";

/** A loop that is held up all the time says so once in such a time. */
const LOG_PERIOD_MS = 1_000;

/** Measures this process's loop from now on, for the metrics and, when somebody holds it up, for the log. */
export const measureTurns = (clock: Clock, log: Logger, metrics: MetricsRegistry): Turns => {
  let meter: TurnMeter | null = null;
  let loggedAtMs = Number.NEGATIVE_INFINITY;
  const tell = ({ cpuMs, owner, turnMs }: LongIteration): void => {
    if (turnMs <= TURN_MS_MAX) return;
    metrics.longTurn(owner.kind);
    const nowMs = clock.monotonicMs();
    if (nowMs - loggedAtMs < LOG_PERIOD_MS) return;
    loggedAtMs = nowMs;
    log.warn(
      { owner: owner.kind, name: owner.name, turnMs: Math.round(turnMs), iterationMs: Math.round(cpuMs) },
      "one turn of the main loop took long: everybody else waited for it",
    );
  };
  const loop = startLoopClock(
    TURN_NOTED_MS,
    () => clock.monotonicMs(),
    (spentUs) => {
      if (meter !== null) tell(meter.explain(spentUs));
    },
  );
  meter = new TurnMeter(loop);
  const taken = meter;
  metrics.readTurnsFrom(() => ({ turnsMs: taken.take(), iterationMs: loop.takeLongestMs() }));
  return meter;
};
