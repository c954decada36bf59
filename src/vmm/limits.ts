/** Limits of the monitor. Those of the service are in src/wire/limits.ts. */

const KIB = 1024;

/** Regions of guest memory a transport may announce (UML: 1; vhost-user's own maximum: 8). */
export const MEMORY_REGIONS_MAX = 8;
/** What a guest may announce as memory beyond what it was given: its kernel rounds up. */
export const MAPPED_MEMORY_BYTES_MORE: number = 64 * KIB * KIB;
/** Entries of a split virtqueue (VIRTIO 1.2, 2.7: a power of two, at most 32768; UML: 256). */
export const QUEUE_ENTRIES_MAX = 1_024;
/** Longest payload of one vhost-user message: a memory table of 8 regions takes 264 bytes, a configuration 12 + 256. */
export const VHOST_USER_PAYLOAD_BYTES_MAX = 512;

/** Messages of one connection: a guest's kernel sends some 25, all of them before its device works. */
export const VHOST_USER_MESSAGES_MAX = 256;
/**
 * Bytes of one descriptor chain. The longest that a driver needs is a frame of 64 KiB with its header; without a bound one of
 * 4 GiB over a large memory costs a look at each of its slices.
 */
export const CHAIN_BYTES_MAX: number = KIB * KIB;
/** Descriptors of one guest's queue looked at in one go: a chain may have as many as its queue has entries. */
export const DESCRIPTORS_PER_TURN_MAX = 2_048;
/** CPU time of the main loop that one guest's devices may take in one go: what they do in a turn is bounded far below. */
export const GUEST_TURN_MS_MAX = 25;
/** A guest that takes longer so often within such a time loses its microVM. */
export const GUEST_LONG_TURNS_MAX = 3;
export const GUEST_LONG_TURNS_WINDOW_MS = 10_000;
/**
 * So does one whose turns together take more than this part of the time for so long, while others want at least so much of
 * the loop. What a function does in a hurry (answers of 6 MB, streams, logs) is bounded by its own CPU far below.
 */
export const GUEST_SHARE_MAX = 0.75;
export const GUEST_SHARE_WINDOW_MS = 10_000;
export const LOOP_OTHERS_MS_MIN = 5;

/** Streams of one guest, both directions together. A further one is refused with RST. */
export const VSOCK_STREAMS_MAX = 1_024;
/** Bytes a guest may have in flight to us on one stream (our `buf_alloc`): bounds what a slow reader costs. */
export const VSOCK_RECEIVE_BYTES_MAX: number = 256 * KIB;
/** A credit update is sent when this much was consumed since the last one. A later one stalls a fast sender. */
export const VSOCK_CREDIT_UPDATE_BYTES: number = 64 * KIB;
/** Longest payload of one packet from a guest (Linux sends 64 KiB at most). */
export const VSOCK_PACKET_BYTES_MAX: number = 64 * KIB;
/** RST packets waiting for a receive buffer. When they are as many, the guest's transmit queue waits too. */
export const VSOCK_RESETS_PENDING_MAX = 256;
/** Packets of one guest handled in one go, and bytes of them, so that others get their turn. */
export const VSOCK_PACKETS_PER_TURN_MAX = 64;
export const VSOCK_BYTES_PER_TURN_MAX: number = KIB * KIB;
/**
 * A guest is told that we are through with what it sent, so that it can free it, once it is so many packets or bytes,
 * or so much later. Being told interrupts it: nobody waits for this but a sender whose queue is full (UML: 128 packets).
 */
export const VSOCK_UNTOLD_PACKETS_MAX = 16;
export const VSOCK_UNTOLD_BYTES_MAX: number = 128 * KIB;
export const VSOCK_UNTOLD_MS_MAX = 20;
/** How long a guest may take to answer a connection request. */
export const VSOCK_CONNECT_TIMEOUT_MS = 5_000;

/** Room for one Ethernet frame with the virtio header before it: an IP packet of 65,535 bytes still to be cut, rounded up. */
export const NET_FRAME_BYTES_MAX: number = 64 * KIB + 32;
/** Frames handed to the host's kernel in one go. */
export const NET_BATCH_FRAMES = 8;
/** Packets on the wire that one guest may cause in one go, each way, so that others get their turn. */
export const NET_PACKETS_PER_TURN_MAX = 64;
/** Shortest part that a guest may have its TCP cut into (TCP_MIN_MSS of Linux): bounds what one frame becomes on the wire. */
export const NET_SEGMENT_BYTES_MIN = 88;

/** Letters, digits and dashes; see `MicroVmConfig.id`. */
export const MICROVM_ID_CHARS_MAX = 64;
/** Guest memory, in MiB. Below the first the guest's kernel does not start. */
export const GUEST_MEMORY_MIB_MIN = 32;
export const GUEST_MEMORY_MIB_MAX: number = 64 * KIB;
/** Guest memory is mapped in slices of so much, and the last of them may be shorter. */
export const MEMORY_SLICE_BYTES: number = 32 * KIB * KIB;
/**
 * Address space that is reserved for such slices, an eighth of what a process has on x86-64. It takes no memory, but each
 * reservation costs a full garbage collection (50 ms and more of the main loop): so one is made at the start for all guests
 * that a host is likely to have at once, and a smaller one only where the host does not let Hearth have as much.
 */
export const MEMORY_RESERVATION_BYTES: number = 16 * KIB * KIB * KIB * KIB;
export const MEMORY_RESERVATION_BYTES_MIN: number = 8 * KIB * KIB * KIB;
/** Longest command line of a guest's kernel (COMMAND_LINE_SIZE of UML). */
export const COMMAND_LINE_BYTES_MAX = 4_096;
/** Disks of a UML guest (MAX_DEV in arch/um/drivers/ubd_kern.c). */
export const UBD_DEVICES_MAX = 16;
/** Largest scratch drive. Lambda's largest /tmp. */
export const SCRATCH_MIB_MAX: number = 10 * KIB;
/** Longest file of one: its file system's tables come on top of what it holds. */
export const SCRATCH_BYTES_MAX: number = (SCRATCH_MIB_MAX + 256) * KIB * KIB;
/** Sizes of scratch drives whose first blocks are kept at hand: up to 700 KB each. */
export const SCRATCH_TEMPLATES_MAX = 8;
/** Console output of one guest taken in one go. */
export const CONSOLE_BYTES_PER_TURN_MAX: number = 64 * KIB;
/** Answers of one guest's management console looked at in one go; one is waited for at most. */
export const MCONSOLE_REPLIES_PER_TURN_MAX = 16;
/** How long a guest's kernel may take to answer its management console. It does so only once it is booted. */
export const MCONSOLE_TIMEOUT_MS = 10_000;
/** How often an unanswered console command is tried again while the guest boots. */
export const MCONSOLE_RETRY_MS = 5;
/** How often a process is asked whether it has ended when it cannot be watched. */
export const REAP_AGAIN_MS = 20;
/** Control groups of a dead monitor that are tried again in one turn. */
export const STALE_GROUPS_PER_TURN_MAX = 16;
/** How long the last of a killed microVM's processes may linger before its cgroup is given up. */
export const REAP_TIMEOUT_MS = 10_000;
/** How often what could not be removed from the host is tried again. */
export const LEFTOVERS_RETRY_MS = 1_000;
/** How often microVMs that work side by side on one CPU are looked at: one of them may be better off on another. */
export const CPU_REBALANCE_MS = 100;
/** How long after the move of a running microVM it is looked for tasks that were being made just then. */
export const MOVE_AGAIN_MS: readonly number[] = [10, 200];
/** Weight in its cgroup (cpu.weight of version 2) of a microVM whose share is a whole CPU; 1 to 10,000 may be. */
export const CPU_WEIGHT_WHOLE = 1_000;
/**
 * Over this time a hard share is enforced: short, so that a small one is many short waits and not few long ones. The
 * kernel's least is 1 ms of CPU time in it (min_cfs_quota_period).
 */
export const CPU_QUOTA_PERIOD_US = 20_000;
export const CPU_QUOTA_US_MIN = 1_000;
/** Share of a microVM that nobody has given one yet: it boots, and gives way to all that work for someone. */
export const CPU_SHARE_BOOT = 0.05;
/**
 * Niceness of the thread that serves all guests (weight 9,548 against 1,024 of a usual one: sched_prio_to_weight of
 * kernel/sched/core.c), and the slice that it asks for: the shortest there is (Linux 6.12 and later), since whoever is through
 * sooner is let in sooner.
 */
export const LOOP_NICE = -10;
export const LOOP_SLICE_NS = 100_000;
/** How long freezing may take. */
export const FREEZE_TIMEOUT_MS = 2_000;
/** Bytes of a Unix socket's path (sun_path without the final zero). */
export const SOCKET_PATH_BYTES_MAX = 107;

/** Limits of the hypervisor's process itself. */
export const JAIL_OPEN_FILES_MAX = 256;
/** Its stack; UML sets itself the same. */
export const JAIL_STACK_BYTES_MAX: number = 8 * KIB * KIB;
/** What it may write to the directory of its own: a socket, and a file with its number. */
export const JAIL_DIRECTORY_BYTES_MAX: number = 64 * KIB;
/** Host memory of a microVM beyond its guest's: page tables, kernel stacks, and the page cache of its drives. */
export const JAIL_MEMORY_OVERHEAD_BYTES: number = 64 * KIB * KIB;
/** Tasks of one microVM on the host: every process of the guest is one there. */
export const JAIL_PIDS_MAX = 4_096;
/** Instructions of a jail's seccomp filter (INSTRUCTIONS_MAX in native/jail/enter.c; the kernel takes 4,096). */
export const FILTER_INSTRUCTIONS_MAX = 1_024;
/** First host user of the jails; slot n runs as this plus n. Beyond any real user or usual subordinate range. */
export const JAIL_USER_FIRST = 1_879_048_192;
/** Jails of this host at once, and so the length of that range. */
export const JAIL_USERS_MAX = 65_536;
