/**
 * A guest broke the rules of a device: an address outside of its memory, a ring that loops, a message that cannot be.
 * Ends that microVM and nothing else.
 */
export class DeviceError extends Error {
  override readonly name = "DeviceError";
}
