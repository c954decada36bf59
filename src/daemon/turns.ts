import type { Clock } from "../lib/clock.ts";
import { TURN_MS_MAX, TURN_NOTED_MS, TurnMeter, tellOwner } from "../lib/turn-meter.ts";
import type { LongIteration, Turns } from "../lib/turn-meter.ts";
import type { Logger, MetricsRegistry } from "../telemetry/index.ts";
import { startLoopClock } from "../vmm/loop-clock.ts";

/** A loop that is held up all the time says so once in such a time. */
const LOG_PERIOD_MS = 60_000;

/** The measured loop of this process. */
export interface MeasuredTurns {
  readonly turns: Turns;
  /** Others wait from now on: the turns before this one's end were for nobody but the start, and are forgotten. */
  readonly judge: () => void;
}

/** Measures this process's loop from now on, for the metrics and, when somebody holds it up, for the log. */
export const measureTurns = (clock: Clock, log: Logger, metrics: MetricsRegistry): MeasuredTurns => {
  let meter: TurnMeter | null = null;
  let judgedFrom = Number.POSITIVE_INFINITY;
  let loggedAtMs = Number.NEGATIVE_INFINITY;
  let notLogged = 0;
  const tell = ({ cpuMs, owner, turnMs }: LongIteration): void => {
    if (turnMs <= TURN_MS_MAX) return;
    metrics.longTurn(owner.kind);
    const nowMs = clock.monotonicMs();
    if (nowMs - loggedAtMs < LOG_PERIOD_MS) {
      notLogged += 1;
      return;
    }
    loggedAtMs = nowMs;
    log.warn(
      { workedFor: tellOwner(owner), turnMs: Math.round(turnMs), iterationMs: Math.round(cpuMs), notLogged },
      "one turn of the main loop took long: everybody else waited for it",
    );
    notLogged = 0;
  };
  const loop = startLoopClock(
    TURN_NOTED_MS,
    () => clock.monotonicMs(),
    (spentUs) => {
      if (meter === null) return;
      const told = meter.explain(spentUs);
      if (loop.iteration >= judgedFrom) return tell(told);
      meter.take();
      loop.takeLongestMs();
    },
  );
  meter = new TurnMeter(loop);
  const taken = meter;
  metrics.readTurnsFrom(() => ({ turnsMs: taken.take(), iterationMs: loop.takeLongestMs() }));
  return { turns: meter, judge: () => (judgedFrom = loop.iteration + 1) };
};
