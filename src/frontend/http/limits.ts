import { REQUEST_BODY_BYTES_MAX } from "../../wire/limits.ts";

/*
 * Limits of the API's HTTP server: all are Hearth's own. What a stranger may hold (a connection, a head, a body) is
 * bounded in number, in bytes and in time; README says nothing of them, SECURITY what they mean for others.
 */

const MIB = 1024 * 1024;

/** What may come in floods is logged once in so long. */
export const LOG_EVERY_MS = 10_000;

/** A certificate with its chain, or a key: some KB each. What is longer is something else. */
export const TLS_FILE_BYTES_MAX: number = 1024 * 1024;
/** How often the files of a certificate are looked at. */
export const TLS_LOOK_MS = 5_000;
/** A certificate that ends within so long is warned of, once in so long: automatic renewals come 30 days ahead. */
export const TLS_EXPIRY_WARN_MS: number = 14 * 24 * 3_600_000;
export const TLS_WARN_EVERY_MS: number = 24 * 3_600_000;

/** Connections at once, unless whoever starts the Frontend reckons with fewer descriptors. */
export const CONNECTIONS_MAX_DEFAULT = 8_192;
/**
 * Part of them that one address may have. Half, because a proxy in front, or the load generator of this machine, is one
 * address too: with the default 4,096 connections.
 */
export const ADDRESS_SHARE: number = 1 / 2;
/** Part of the places that idle connections with good keys keep against newcomers: the other half is for who comes. */
export const IDLE_SHARE: number = 1 / 2;
/** Refused connections that are told so at once, and how long each may take to read it; over this they are just closed. */
export const REFUSALS_MAX = 64;
export const REFUSAL_MS_MAX = 1_000;
/** Requests that one connection may send before it has the answers: more at once than any client pipelines. */
export const PIPELINED_MAX = 16;
/** Bytes that a connection's parser gets at a time: some 300 of the shortest requests, a few ms of the loop. */
export const PARSED_BYTES_MAX: number = 16 * 1024;

/** From a connection's beginning, or its last answer's, until a request's head is whole. */
export const HEAD_MS_MAX = 10_000;
/** How often connections are looked at for that. */
export const HEAD_CHECK_MS = 1_000;
export const HEAD_BYTES_MAX: number = 16 * 1024;
/** How long a connection that was used with good keys may be idle: longer than proxies keep theirs (60 s and a little). */
export const KEEP_ALIVE_MS = 75_000;

/** What a client is told to wait when Hearth is being stopped: until it is back when it is restarted. */
export const DRAIN_RETRY_AFTER_S = 5;
/** How often readiness is looked at, however often it is asked for. */
export const READY_CHECK_MS = 1_000;

/** After the first `BODY_GRACE_MS` a body must have come at this rate on the whole: 128 kbit/s. */
export const BODY_GRACE_MS = 10_000;
export const BODY_BYTES_PER_S_MIN: number = 16 * 1024;
export const BODY_CHECK_MS = 1_000;
/** Bodies together whose senders have not proven yet that they have a key, and of all others, while they are held. */
export const UNPROVEN_BODIES_BYTES_MAX: number = 256 * MIB;
export const BODIES_BYTES_MAX: number = 1_024 * MIB;
/** A body that is refused is read on to this length and thrown away, so that its sender hears the answer. */
export const REFUSED_BODY_BYTES_MAX: number = 2 * REQUEST_BODY_BYTES_MAX;
export const REFUSED_BODY_MS_MAX = 10_000;

if (UNPROVEN_BODIES_BYTES_MAX < 2 * REQUEST_BODY_BYTES_MAX) {
  throw new Error(
    "UNPROVEN_BODIES_BYTES_MAX must hold two of the largest bodies, else one uploader keeps out another.",
  );
}
