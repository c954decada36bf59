/*
 * Packets of the virtio socket device, VIRTIO 1.2 section 5.10.6: a header of 44 bytes, little-endian, then the payload.
 */

export const VSOCK_DEVICE_TYPE = 19;
export const VSOCK_HEADER_BYTES = 44;
export const VSOCK_HOST_CID = 2;
/** Every guest may have the same context ID: each has a device, and so a world, of its own. */
export const VSOCK_GUEST_CID = 3;
export const VSOCK_TYPE_STREAM = 1;

export const VsockOperation = {
  Request: 1,
  Response: 2,
  Reset: 3,
  Shutdown: 4,
  ReadWrite: 5,
  CreditUpdate: 6,
  CreditRequest: 7,
} as const;

export const SHUTDOWN_RECEIVE = 1;
export const SHUTDOWN_SEND = 2;
export const SHUTDOWN_BOTH = 3;

/** A header, each field read once. The CIDs are only said to be right or not: a device has one guest. */
export interface VsockHeader {
  addressed: boolean;
  sourcePort: number;
  destinationPort: number;
  length: number;
  type: number;
  operation: number;
  flags: number;
  bufferBytes: number;
  forwarded: number;
}

/** Reads a header a guest sent into `header`. */
export const readVsockHeader = (view: DataView, at: number, header: VsockHeader): void => {
  header.addressed =
    view.getUint32(at, true) === VSOCK_GUEST_CID &&
    view.getUint32(at + 4, true) === 0 &&
    view.getUint32(at + 8, true) === VSOCK_HOST_CID &&
    view.getUint32(at + 12, true) === 0;
  header.sourcePort = view.getUint32(at + 16, true);
  header.destinationPort = view.getUint32(at + 20, true);
  header.length = view.getUint32(at + 24, true);
  header.type = view.getUint16(at + 28, true);
  header.operation = view.getUint16(at + 30, true);
  header.flags = view.getUint32(at + 32, true);
  header.bufferBytes = view.getUint32(at + 36, true);
  header.forwarded = view.getUint32(at + 40, true);
};

/** Writes a header from the host's port to the guest's. */
export const writeVsockHeader = (
  view: DataView,
  at: number,
  header: Pick<
    VsockHeader,
    "sourcePort" | "destinationPort" | "length" | "operation" | "flags" | "bufferBytes" | "forwarded"
  >,
): void => {
  view.setUint32(at, VSOCK_HOST_CID, true);
  view.setUint32(at + 4, 0, true);
  view.setUint32(at + 8, VSOCK_GUEST_CID, true);
  view.setUint32(at + 12, 0, true);
  view.setUint32(at + 16, header.sourcePort, true);
  view.setUint32(at + 20, header.destinationPort, true);
  view.setUint32(at + 24, header.length, true);
  view.setUint16(at + 28, VSOCK_TYPE_STREAM, true);
  view.setUint16(at + 30, header.operation, true);
  view.setUint32(at + 32, header.flags, true);
  view.setUint32(at + 36, header.bufferBytes, true);
  view.setUint32(at + 40, header.forwarded, true);
};

/** An empty header to read into. */
export const emptyVsockHeader = (): VsockHeader => ({
  addressed: false,
  sourcePort: 0,
  destinationPort: 0,
  length: 0,
  type: 0,
  operation: 0,
  flags: 0,
  bufferBytes: 0,
  forwarded: 0,
});
