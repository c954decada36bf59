import assert from "node:assert/strict";
import { test } from "node:test";
import { ipv4, ipv4Text } from "./addresses.ts";
import { parseRange, rangeText } from "./address-range.ts";
import { closedIntervals, opensAnything, type AddressInterval } from "./closed-ranges.ts";

const isClosed = (intervals: readonly AddressInterval[], address: string): boolean =>
  intervals.some(({ first, last }) => ipv4(address) >= first && ipv4(address) <= last);

const closedOf = (intervals: readonly AddressInterval[], addresses: readonly string[]): string[] =>
  addresses.filter((address) => isClosed(intervals, address));

/** One or two addresses of every closed range, at its edges. */
const INSIDE = `
  0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 100.100.100.200 127.0.0.1
  168.63.129.16 169.254.0.0 169.254.169.254 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0
  192.0.0.192 192.0.0.255 192.0.2.0 192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255
  198.51.100.7 203.0.113.255 224.0.0.0 239.255.255.255 240.0.0.0 255.255.255.255
`
  .trim()
  .split(/\s+/);
/** Their neighbours. */
const OUTSIDE = `
  1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
  168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0
  192.0.3.0 192.88.98.255 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255
  203.0.112.255 203.0.114.0 223.255.255.255 8.8.8.8
`
  .trim()
  .split(/\s+/);

test("private, shared, metadata and reserved addresses are closed, their neighbours are not", () => {
  const intervals = closedIntervals([]);
  assert.deepEqual(closedOf(intervals, INSIDE), INSIDE);
  assert.deepEqual(closedOf(intervals, OUTSIDE), []);
  // In order, apart from each other, and multicast and reserved are one.
  for (const [at, { first, last }] of intervals.entries()) {
    assert.ok(first <= last);
    assert.ok(at === 0 || first > (intervals[at - 1]?.last ?? 0) + 1, ipv4Text(first));
  }
  assert.deepEqual(intervals.at(-1), { first: ipv4("224.0.0.0"), last: ipv4("255.255.255.255") });
});

test("the narrowest range decides what an opened one opens", () => {
  const left = (...opened: string[]): string[] => closedOf(closedIntervals(opened.map(parseRange)), INSIDE);
  const without = (...addresses: string[]): string[] => INSIDE.filter((address) => !addresses.includes(address));
  assert.deepEqual(left("10.0.0.0/8"), without("10.0.0.0", "10.255.255.255"));
  assert.deepEqual(left("10.0.0.0/9", "203.0.113.0/24"), without("10.0.0.0", "203.0.113.255"));
  assert.deepEqual(left("100.64.0.0/10"), without("100.64.0.0", "100.127.255.255"));
  assert.deepEqual(left("169.254.0.0/16"), without("169.254.0.0", "169.254.255.255"));
  assert.deepEqual(left("100.100.100.200"), without("100.100.100.200"));
  assert.deepEqual(left("0.0.0.0/0"), INSIDE);
  assert.deepEqual(left("192.168.0.0/17", "192.168.255.255/32"), without("192.168.0.0", "192.168.255.255"));
  // One address in the midst of a range: the two parts beside it stay closed.
  const around = closedIntervals([parseRange("10.1.2.3")]);
  assert.deepEqual(closedOf(around, ["10.1.2.2", "10.1.2.3", "10.1.2.4"]), ["10.1.2.2", "10.1.2.4"]);
});

test("what cannot be opened, or is open, is told from what can be", () => {
  const useful = ["10.0.0.0/8", "10.1.2.3", "192.168.0.0/16", "169.254.169.254", "203.0.113.4/30", "240.0.0.0/4"];
  for (const text of useful) assert.ok(opensAnything(parseRange(text)), text);
  const useless = ["8.8.8.8", "0.0.0.0/0", "127.0.0.1", "0.0.0.0/8", "198.18.0.0/15", "224.0.0.0/4", "172.0.0.0/8"];
  for (const text of useless) assert.ok(!opensAnything(parseRange(text)), text);
});

test("ranges are read and written", () => {
  assert.equal(rangeText(parseRange("172.16.0.0/12")), "172.16.0.0/12");
  assert.equal(rangeText(parseRange("192.0.2.1")), "192.0.2.1/32");
  assert.throws(() => parseRange("10.1.0.0/8"), /beyond its prefix: the range is 10\.0\.0\.0\/8/);
  for (const wrong of [
    "",
    "10",
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/8/8",
    "::1/64",
    "10.0.0.0/-1",
    "10.0.0/8",
    "a/8",
  ])
    assert.throws(() => parseRange(wrong), /must be an IPv4 range/, wrong);
});
