/**
 * A place in a trace, as one role hands it to the next: whatever is done for it hangs below that span. Plain data of the
 * W3C's Trace Context.
 */
export interface TraceContext {
  /** 32 lower-case hexadecimal digits. The first eight are the time of its start where Hearth made it, as X-Ray wants. */
  readonly traceId: string;
  /** 16 lower-case hexadecimal digits. */
  readonly spanId: string;
  readonly sampled: boolean;
  /** Value of `tracestate`, not looked into; null when there was none. */
  readonly state: string | null;
}

/** `traceparent` of any version (W3C Trace Context, section 3.2): later ones may have more fields behind these. */
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])(?:-.*)?$/;
/** Longest `tracestate` that is passed on; the recommendation is to keep at least so much (section 3.3.1.5). */
const TRACESTATE_CHARS_MAX = 512;

/** The context in a request's `traceparent` and `tracestate`; null when there is none or it is broken. */
export const parseTraceparent = (traceparent: string, tracestate: string | null): TraceContext | null => {
  const match = TRACEPARENT.exec(traceparent);
  if (match === null) return null;
  const [, version = "", traceId = "", spanId = "", flags = ""] = match;
  if (version === "00" && traceparent.length !== 55) return null;
  const state = tracestate !== null && tracestate.length <= TRACESTATE_CHARS_MAX ? tracestate : null;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1, state };
};

/** What an `X-Amzn-Trace-Id` says ("Tracing header" in the X-Ray developer guide). */
export interface AmznTrace {
  readonly traceId: string;
  /** null when the header names no span, as a load balancer's does. */
  readonly spanId: string | null;
  /** null when the decision is left to who comes next. */
  readonly sampled: boolean | null;
}

const ROOT = /(?:^|;)\s*Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?=;|\s*$)/i;
const PARENT = /(?:^|;)\s*Parent=([0-9a-f]{16})(?=;|\s*$)/i;
const SAMPLED = /(?:^|;)\s*Sampled=([01])(?=;|\s*$)/i;

/** null when the header has no root, without which it says nothing. */
export const parseAmznTrace = (header: string): AmznTrace | null => {
  const root = ROOT.exec(header);
  if (root === null) return null;
  const sampled = SAMPLED.exec(header)?.[1];
  return {
    traceId: `${root[1] ?? ""}${root[2] ?? ""}`.toLowerCase(),
    spanId: PARENT.exec(header)?.[1]?.toLowerCase() ?? null,
    sampled: sampled === undefined ? null : sampled === "1",
  };
};

/** The header for who is called from this place. */
export const formatAmznTrace = ({ traceId, spanId, sampled }: Omit<TraceContext, "state">): string =>
  `Root=1-${traceId.slice(0, 8)}-${traceId.slice(8)};Parent=${spanId};Sampled=${sampled ? 1 : 0}`;
