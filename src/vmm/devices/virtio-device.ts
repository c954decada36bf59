import type { Clock } from "../../lib/clock.ts";
import type { WatchOwner } from "../poller.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** VIRTIO_F_VERSION_1: the device and its driver follow VIRTIO 1.0 or later. Always offered, always required. */
export const FEATURE_VERSION_1: bigint = 1n << 32n;

/**
 * The guest that a device is for: it does the device's work that no call of the transport waits for, measures it, and ends
 * by what that throws.
 */
export interface DeviceHost extends WatchOwner {
  /** Its timers' calls are such work too. */
  readonly clock: Clock;
}

/** What a transport lends to a device once its driver is ready. */
export interface DeviceDriver {
  /** Features the driver accepted: a subset of those offered. */
  readonly features: bigint;
  /** As many as the device's `queues`. */
  readonly queues: readonly Virtqueue[];
  /** Interrupts the driver for a queue. Devices ask `Virtqueue.takeSignal` first and call this once for a batch. */
  readonly signal: (queue: number) => void;
}

/**
 * A virtio device, whatever its transport (vhost-user, virtio-mmio). All calls come from the transport and may throw
 * `DeviceError`, which ends the microVM.
 */
export interface VirtioDevice extends Disposable {
  /** Device ID of VIRTIO 1.2, section 5. */
  readonly type: number;
  readonly features: bigint;
  /** Number of queues. */
  readonly queues: number;
  /** The configuration space, read-only for the driver. */
  readonly config: Uint8Array;
  /** The driver is ready; until then nothing else is called. */
  activate(driver: DeviceDriver): void;
  /** The driver has made buffers available. Spurious kicks happen. */
  kick(queue: number): void;
  /** The guest is gone: its memory is not to be looked at any more. What the host holds of the device is there still. */
  detach(): void;
}
