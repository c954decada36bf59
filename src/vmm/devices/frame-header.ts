import { NET_SEGMENT_BYTES_MIN } from "../limits.ts";

/*
 * struct virtio_net_hdr, before every frame (VIRTIO 1.2, 5.1.6): what is still to be done to it. Of what a guest writes
 * there two wishes are heard, a checksum to be filled in and TCP to be cut into segments; all numbers but the size of
 * a segment come from the packet itself, so that the host's kernel never gets one that does not fit it.
 */

/** flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers; two bytes each but the first two. */
export const NET_HEADER_BYTES = 12;
const FLAGS = 0;
const SEGMENTATION = 1;
const HEADERS_BYTES = 2;
const SEGMENT_BYTES = 4;
const CHECKSUM_START = 6;
const CHECKSUM_OFFSET = 8;
const BUFFERS = 10;
const NEEDS_CHECKSUM = 1;
const SEGMENTATION_NONE = 0;
const SEGMENTATION_TCP_IPV4 = 1;

export const ETHERNET_HEADER_BYTES = 14;
const ETHERNET_TYPE = 12;
const TYPE_IPV4 = 0x0800;
const TYPE_ARP = 0x0806;
const IP_HEADER_BYTES_MIN = 20;
const IP_LENGTH = 2;
const IP_FRAGMENT = 6;
/** "More fragments" and the offset. */
const IP_FRAGMENT_MASK = 0x3fff;
const IP_PROTOCOL = 9;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const TCP_HEADER_BYTES_MIN = 20;
const TCP_DATA_OFFSET = 12;
/** Where the checksum is, and how long the header at least. */
const TRANSPORTS: ReadonlyMap<number, { readonly checksum: number; readonly bytes: number }> = new Map([
  [PROTOCOL_TCP, { checksum: 16, bytes: TCP_HEADER_BYTES_MIN }],
  [PROTOCOL_UDP, { checksum: 6, bytes: 8 }],
]);

/** Says that the frame lies in so many buffers. */
export const setBuffers = (view: DataView, header: number, buffers: number): void => {
  view.setUint16(header + BUFFERS, buffers, true);
};

/**
 * Checks a frame of a guest's, which is at `at` with `length` bytes, its header included, and rewrites that header.
 * Returns how many packets it is on the wire; 0 when it may not leave: neither IPv4 nor ARP, longer than the MTU
 * allows, or with wishes that do not fit it.
 */
export const checkFrame = (view: DataView, at: number, length: number, mtu: number): number => {
  const needsChecksum = view.getUint8(at + FLAGS) === NEEDS_CHECKSUM;
  const segmentation = view.getUint8(at + SEGMENTATION);
  const segmentBytes = view.getUint16(at + SEGMENT_BYTES, true);
  for (let i = 0; i < NET_HEADER_BYTES; i += 4) view.setUint32(at + i, 0);
  const frame = at + NET_HEADER_BYTES;
  const frameBytes = length - NET_HEADER_BYTES;
  if (frameBytes < ETHERNET_HEADER_BYTES) return 0;
  const type = view.getUint16(frame + ETHERNET_TYPE);
  if (type !== TYPE_IPV4 && type !== TYPE_ARP) return 0;
  if (segmentation === SEGMENTATION_NONE && frameBytes > mtu + ETHERNET_HEADER_BYTES) return 0;
  if (!needsChecksum) return segmentation === SEGMENTATION_NONE ? 1 : 0;
  if (type !== TYPE_IPV4) return 0;
  const transport = transportOf(view, frame, frameBytes);
  if (transport === null) return 0;
  view.setUint8(at + FLAGS, NEEDS_CHECKSUM);
  view.setUint16(at + CHECKSUM_START, transport.start, true);
  view.setUint16(at + CHECKSUM_OFFSET, transport.checksum, true);
  if (segmentation === SEGMENTATION_NONE) return 1;
  if (segmentation !== SEGMENTATION_TCP_IPV4 || transport.protocol !== PROTOCOL_TCP) return 0;
  const headers = transport.start + (view.getUint8(frame + transport.start + TCP_DATA_OFFSET) >> 4) * 4;
  const isPossible = headers >= transport.start + TCP_HEADER_BYTES_MIN && headers < frameBytes;
  const fits = segmentBytes >= NET_SEGMENT_BYTES_MIN && headers - ETHERNET_HEADER_BYTES + segmentBytes <= mtu;
  if (!isPossible || !fits) return 0;
  view.setUint8(at + SEGMENTATION, SEGMENTATION_TCP_IPV4);
  view.setUint16(at + HEADERS_BYTES, headers, true);
  view.setUint16(at + SEGMENT_BYTES, segmentBytes, true);
  return Math.ceil((frameBytes - headers) / segmentBytes);
};

interface Transport {
  readonly protocol: number;
  /** Offset of its header in the frame. */
  readonly start: number;
  /** Offset of the checksum in that header. */
  readonly checksum: number;
}

/** The TCP or UDP header of an IPv4 frame; null when there is none that lies whole in it. */
const transportOf = (view: DataView, frame: number, frameBytes: number): Transport | null => {
  const packet = frame + ETHERNET_HEADER_BYTES;
  const packetBytes = frameBytes - ETHERNET_HEADER_BYTES;
  if (packetBytes < IP_HEADER_BYTES_MIN) return null;
  const first = view.getUint8(packet);
  const headerBytes = (first & 15) * 4;
  if (first >> 4 !== 4 || headerBytes < IP_HEADER_BYTES_MIN) return null;
  if (view.getUint16(packet + IP_LENGTH) > packetBytes) return null;
  if ((view.getUint16(packet + IP_FRAGMENT) & IP_FRAGMENT_MASK) !== 0) return null;
  const protocol = view.getUint8(packet + IP_PROTOCOL);
  const transport = TRANSPORTS.get(protocol);
  if (transport === undefined || headerBytes + transport.bytes > packetBytes) return null;
  return { protocol, start: ETHERNET_HEADER_BYTES + headerBytes, checksum: transport.checksum };
};
