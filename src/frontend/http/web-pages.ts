import type { IncomingHttpHeaders } from "node:http";
import { isLoopbackAddress } from "../../lib/loopback.ts";
import { ServiceError } from "../../wire/errors.ts";
import type { Authenticator } from "../auth.ts";
import { noAuthenticator } from "../auth.ts";

/*
 * Without authentication whoever reaches the address may do everything, and a web page that the owner looks at reaches
 * it too: the browser sends the page's requests from this very machine. Three headers tell them apart, and no page can
 * leave them away. `Origin` and `Sec-Fetch-Site` (Fetch Standard; Fetch Metadata Request Headers) say whose page it is. `Host`
 * is the name in the page's own address: a page of evil.example whose name was made to point to 127.0.0.1 afterwards
 * (DNS rebinding) is "same-origin" for the browser, but its `Host` stays evil.example. Signed requests need none of
 * this: a page does not have the keys.
 */

const FORBIDDEN = 403;
/** What a browser says of a request that no page of another origin caused: the owner typed the address. */
const OWN_SITES: ReadonlySet<string> = new Set(["same-origin", "none"]);
/** Names of the loopback besides its addresses. */
const LOOPBACK_NAMES: ReadonlySet<string> = new Set(["localhost", "localhost.localdomain"]);

/** The name in `host:port` or `[host]:port`, in lower case; null for what is neither. */
const nameOf = (authority: string): string | null =>
  /^(?:\[(?<six>[0-9a-f:.]+)\]|(?<name>[^:/\s@[\]]+))(?::\d{1,5})?$/
    .exec(authority.toLowerCase())
    ?.slice(1)
    .find((part) => part !== undefined) ?? null;

const one = (value: string | string[] | undefined): string | undefined => (Array.isArray(value) ? value[0] : value);

const refused = (what: string, remedy: string): ServiceError =>
  new ServiceError(
    "AccessDeniedException",
    FORBIDDEN,
    `${what} Hearth runs without authentication, so it takes no request that a web page may have caused. ${remedy}`,
  );

/** Throws AccessDeniedException for a request that a web page of another origin may have caused. */
export const refuseWebPages = (headers: IncomingHttpHeaders, isAllowed: (host: string) => boolean): void => {
  const host = one(headers.host);
  const name = host === undefined ? null : nameOf(host);
  // HTTP/1.0 needs no Host; every browser sends one.
  if (host !== undefined && (name === null || !isAllowed(name))) {
    throw refused(
      `The request is for the host ${JSON.stringify(host)}.`,
      `Ask for the address that Hearth listens on or for localhost, or start it with --allow-host ${name ?? "NAME"}.`,
    );
  }
  const origin = one(headers.origin);
  if (origin !== undefined) {
    const from = /^https?:\/\/(.+)$/.exec(origin)?.[1];
    const page = from === undefined ? null : nameOf(from);
    // A page of this machine's other ports is no page of Hearth's: only what was allowed by name passes.
    if (page === null || !isAllowed(page) || LOOPBACK_NAMES.has(page) || isLoopbackAddress(page)) {
      throw refused(
        `The request has the Origin ${JSON.stringify(origin)}.`,
        "Leave the header away, start Hearth with --allow-host and the page's host, or with authentication.",
      );
    }
    return;
  }
  const site = one(headers["sec-fetch-site"]);
  if (site !== undefined && !OWN_SITES.has(site.toLowerCase())) {
    throw refused(
      `The request has Sec-Fetch-Site: ${JSON.stringify(site)}.`,
      "Leave the header away, or start Hearth with authentication.",
    );
  }
};

/**
 * Lets in whoever reaches `listenHost`, but no web page. `allowedHosts` are further names that the service is called by
 * (a proxy's, a container's), whose pages may call as well.
 */
export const openAuthenticator = (listenHost: string, allowedHosts: readonly string[]): Authenticator => {
  const allowed = new Set(allowedHosts.map((name) => name.toLowerCase()));
  const listened = listenHost.toLowerCase();
  const isAllowed = (host: string): boolean =>
    host === listened || LOOPBACK_NAMES.has(host) || isLoopbackAddress(host) || allowed.has(host);
  return (head) => {
    refuseWebPages(head.headers, isAllowed);
    return noAuthenticator(head);
  };
};
