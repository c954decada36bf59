/*
 * The systemd unit of a Hearth. Each line that takes something away says what Hearth still needs where that is not plain:
 * it makes namespaces, mounts, network links and control groups for microVMs, as root, and everything else it can do without.
 */

export interface UnitOptions {
  /** The Node that runs it, and its main file; absolute. */
  readonly node: string;
  readonly main: string;
  readonly dataDir: string;
  /** Where compiled code is kept. */
  readonly cacheDir: string;
  /** Further arguments of `hearth up`. */
  readonly args: readonly string[];
  readonly drainS: number;
}

/** What is left to do after the drain: microVMs and networks end, the database closes. */
const STOP_AFTER_DRAIN_S = 30;
/** A main loop that does not turn for so long is not going to. */
const WATCHDOG_S = 60;
/** A microVM takes some 24 descriptors of the worker, and a connection one. */
const FILES_MAX = 1_048_576;

/** An argument as systemd reads it ("COMMAND LINES" in systemd.service(5)): quoted, without its variables and specifiers. */
export const quoted = (argument: string): string =>
  `"${argument.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%").replaceAll("$", "$$$$")}"`;

/** Capabilities it keeps, for: namespaces and mounts, networks, users of microVMs, their files, processes and limits, priorities. */
const CAPABILITIES =
  "CAP_SYS_ADMIN CAP_NET_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_KILL CAP_SYS_RESOURCE CAP_SYS_NICE CAP_NET_BIND_SERVICE";

const isBelow = (path: string, directory: string): boolean => path === directory || path.startsWith(`${directory}/`);

/** The text of the unit. */
export const unitOf = ({ node, main, dataDir, cacheDir, args, drainS }: UnitOptions): string => {
  const command = [node, main, "up", "--data-dir", dataDir, "--log-format", "json", ...args].map(quoted).join(" ");
  // A program below a home directory must stay readable.
  const inHome = [node, main].some((path) => ["/home", "/root", "/run/user"].some((home) => isBelow(path, home)));
  return `# Made by \`hearth service install\`; run that again to change it.
[Unit]
Description=Hearth: AWS Lambda on this machine
Documentation=file:${main.replace(/src\/cli\/main\.ts$/, "docs/operations.md")}
Wants=network-online.target
After=network-online.target nftables.service
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart=${command}
Environment=NODE_COMPILE_CACHE=${cacheDir}
Restart=on-failure
RestartSec=1
TimeoutStartSec=120
WatchdogSec=${WATCHDOG_S}
# Running calls end first (--drain); then the rest.
KillMode=mixed
TimeoutStopSec=${drainS + STOP_AFTER_DRAIN_S}
# 143: SIGTERM a second time.
SuccessExitStatus=143

# What it needs much of.
LimitNOFILE=${FILES_MAX}
LimitNPROC=infinity
TasksMax=infinity
LimitCORE=0
# A group for every microVM, below its own; one that outgrows its memory ends alone.
Delegate=yes
OOMPolicy=continue
OOMScoreAdjust=-500

# What it may reach.
ProtectSystem=strict
ReadWritePaths=${quoted(dataDir)}
StateDirectory=hearth
CacheDirectory=hearth
RuntimeDirectory=hearth
ProtectHome=${inHome ? "read-only" : "yes"}
PrivateTmp=yes
PrivateMounts=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
DeviceAllow=/dev/kvm rw
ProtectProc=default
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
KeyringMode=private

# What it may do. Not here: RestrictNamespaces, ProtectKernelTunables and ProtectControlGroups (it makes namespaces, switches
# ip_forward on and makes control groups), MemoryDenyWriteExecute (V8 compiles), LockPersonality and ProtectHostname (a
# microVM's process sets both of its own), PrivateDevices (/dev/net/tun, /dev/kvm).
CapabilityBoundingSet=${CAPABILITIES}
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`;
};
