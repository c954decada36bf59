import { isIP } from "node:net";

/** True for an address that only this machine has (127.0.0.0/8, ::1, and the former written as IPv6). Names are none. */
export const isLoopbackAddress = (address: string): boolean => {
  const four = address.replace(/^::ffff:/i, "");
  return address === "::1" || (isIP(four) === 4 && four.startsWith("127."));
};
