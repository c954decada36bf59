import { native, netlinkExchange } from "../../vmm/native.ts";

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

/** Messages as they are sent, numbered from 0 by their place in the list. */
const encode = (messages: readonly NetlinkMessage[]): Buffer =>
  Buffer.concat(
    messages.map(({ type, flags, payload, acknowledged }, sequence) => {
      const body = Buffer.concat(payload);
      const bytes = Buffer.alloc(align(HEADER_BYTES + body.length));
      bytes.writeUInt32LE(HEADER_BYTES + body.length);
      bytes.writeUInt16LE(type, 4);
      bytes.writeUInt16LE(flags | NLM_F_REQUEST | (acknowledged ? NLM_F_ACK : 0), 6);
      bytes.writeUInt32LE(sequence, 8);
      body.copy(bytes, HEADER_BYTES);
      return bytes;
    }),
  );

/** A netlink socket, which it owns. What is asked of it is asked in turn. */
export class NetlinkSocket implements Disposable {
  #fd: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Sends messages; resolves when all are done. Rejects with the first `NetlinkError`, whose sequence is an index. */
  exchange(messages: readonly NetlinkMessage[]): Promise<void> {
    const request = encode(messages);
    const answers = messages.filter(({ acknowledged }) => acknowledged).length;
    const done = this.#last.then(() => netlinkExchange(this.#fd, request, answers));
    this.#last = done.catch(() => {});
    return done;
  }

  /** Only when nothing is being asked. */
  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    native().close(this.#fd);
    this.#fd = -1;
  }
}
