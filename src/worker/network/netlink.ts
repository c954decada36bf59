import type { NetlinkRequest } from "../../vmm/native.ts";

/*
 * Netlink (netlink(7)): messages of a header, a payload and attributes, numbers in the host's byte order. Only what is
 * asked of the kernel; its answers are acknowledgements, which the native side reads.
 */

const HEADER_BYTES = 16;
const ATTRIBUTE_HEADER_BYTES = 4;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLA_F_NESTED = 0x8000;

export const Flag = { Create: 0x400, Exclusive: 0x200, Replace: 0x100, Append: 0x800 } as const;

export interface NetlinkMessage {
  readonly type: number;
  /** `Flag`s. */
  readonly flags: number;
  /** Fixed part, then attributes. */
  readonly payload: readonly Buffer[];
  /** Whether to wait for its acknowledgement. An error is always answered. */
  readonly acknowledged: boolean;
}

export const u8 = (value: number): Buffer => Buffer.of(value);

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};

export const be16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
};

export const be32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};

export const be64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};

/** A text with its final NUL. */
export const text = (value: string): Buffer => Buffer.from(`${value}\0`);

const align = (length: number): number => (length + 3) & ~3;

/** One attribute: length, type, value, padded to four bytes. */
export const attribute = (type: number, value: Buffer): Buffer => {
  const bytes = Buffer.alloc(align(ATTRIBUTE_HEADER_BYTES + value.length));
  bytes.writeUInt16LE(ATTRIBUTE_HEADER_BYTES + value.length);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, ATTRIBUTE_HEADER_BYTES);
  return bytes;
};

/** An attribute made of attributes. */
export const nested = (type: number, ...children: readonly Buffer[]): Buffer =>
  attribute(type | NLA_F_NESTED, Buffer.concat(children));

/** Messages as they are sent, numbered by their place in the list. */
export const netlinkRequest = (messages: readonly NetlinkMessage[]): NetlinkRequest => ({
  messages: Buffer.concat(messages.map(encode)),
  answers: messages.filter(({ acknowledged }) => acknowledged).length,
});

const encode = ({ type, flags, payload, acknowledged }: NetlinkMessage, number: number): Buffer => {
  const body = Buffer.concat(payload);
  const bytes = Buffer.alloc(align(HEADER_BYTES + body.length));
  bytes.writeUInt32LE(HEADER_BYTES + body.length);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags | NLM_F_REQUEST | (acknowledged ? NLM_F_ACK : 0), 6);
  bytes.writeUInt32LE(number, 8);
  body.copy(bytes, HEADER_BYTES);
  return bytes;
};
