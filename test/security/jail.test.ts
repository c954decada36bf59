import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { processTree } from "../../src/vmm/hypervisors/uml/processes.ts";
import { JAIL_PIDS_MAX, JAIL_USER_FIRST } from "../../src/vmm/limits.ts";
import type { MicroVmExit } from "../../src/vmm/microvm.ts";
import { compile, TestGuest } from "../vmm/guest.ts";

/*
 * A guest that has taken over its hypervisor process entirely: the attacking program runs in the jail in the kernel's
 * place, with the same command line, filter, namespaces, user and limits.
 */

/** Only then a jail has a user and a control group of its own. */
const ROOT = process.getuid?.() === 0;

let guest: TestGuest;
let hypervisor: UmlHypervisor;
let next = 0;

before(() => {
  guest = new TestGuest();
  const attacker = join(guest.directory, "attacks");
  compile(new URL("attacks.c", import.meta.url).pathname, attacker, ["-static", "-std=gnu17"]);
  hypervisor = new UmlHypervisor({ runDir: guest.runDir, umlKernel: attacker });
});

after(() => {
  guest[Symbol.dispose]();
});

/** What became of an attempt: what it said, and how the jail ended. */
const attempt = async (name: string): Promise<{ readonly said: string; readonly exit: MicroVmExit }> => {
  const said: Uint8Array[] = [];
  const microVm = await hypervisor.spawn({
    id: `attack-${String(process.pid)}-${String(next++)}`,
    memoryMib: 64,
    drives: [{ path: guest.image, readOnly: true }],
    init: "/init",
    initArguments: [name],
    onConsole: (chunk) => said.push(chunk),
  });
  const exit = await microVm.exited;
  return { said: Buffer.concat(said).toString().trim(), exit };
};

/** Some at a time. */
const each = async <T>(entries: readonly T[], work: (entry: T) => Promise<void>): Promise<void> => {
  const left = entries.values();
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (const entry of left) await work(entry);
    }),
  );
};

/** Calls that the jail's filter reports: the attempt's name, and the call's where it is another. */
const forbidden: readonly (string | readonly [attempt: string, call: string])[] = [
  ..."mount umount2 pivot_root chroot fsopen fsmount move_mount open_tree mount_setattr".split(" "),
  ..."unshare setns setuid setgid setresuid setgroups setfsuid capset".split(" "),
  ..."bpf keyctl add_key request_key perf_event_open io_uring_setup userfaultfd".split(" "),
  ..."kexec_load kexec_file_load reboot init_module finit_module delete_module".split(" "),
  ..."process_vm_readv process_vm_writev process_madvise pidfd_open pidfd_getfd pidfd_send_signal".split(" "),
  ..."execve fork vfork swapon acct syslog iopl ioperm modify_ldt".split(" "),
  ..."open_by_handle_at name_to_handle_at mknod mknodat link symlink rename chmod chown setxattr openat2".split(" "),
  ..."sched_setaffinity sched_setscheduler setpriority ioprio_set kcmp".split(" "),
  ..."memfd_secret mlockall mbind move_pages migrate_pages remap_file_pages splice vmsplice tee".split(" "),
  ..."fanotify_init inotify_init1 quotactl settimeofday clock_settime adjtimex sethostname".split(" "),
  ..."shmget msgget semget mq_open listen accept4 setsockopt landlock_create_ruleset".split(" "),
  ..."lookup_dcookie vhangup getdents rt_sigqueueinfo tkill".split(" "),
  ["socket-inet", "socket(0x2, 0x1"],
  ["socket-inet6", "socket(0xa, 0x2"],
  ["socket-netlink", "socket(0x10, 0x3"],
  ["socket-packet", "socket(0x11, 0x3"],
  ["socket-vsock", "socket(0x28, 0x1"],
  ["socket-alg", "socket(0x26, 0x5"],
  ["socket-unix-raw", "socket(0x1, 0x5"],
  ["socketpair-inet", "socketpair(0x2"],
  ["clone-newuser", "clone(0x10000011"],
  ["clone-newnet", "clone(0x40000011"],
  ["clone-newtime", "clone(0x91"],
  ["ptrace-attach", "ptrace(0x10"],
  ["ptrace-seize", "ptrace(0x4206"],
  ["seccomp-listener", "seccomp(0x1, 0x8"],
  ["fallocate-zeroes", "fallocate("],
  ["prctl-seccomp", "prctl(0x16"],
  ["prctl-mm", "prctl(0x23"],
  ["prctl-ptracer", "prctl(0x59616d61"],
  ["prctl-dumpable", "prctl(0x4"],
  ["personality", "personality(0x400000"],
  ["ioctl-tiocsti", "ioctl(0x0, 0x5412"],
  ["ioctl-clone-file", "ioctl(0x0, 0x40049409"],
  ["fcntl-pipe-size", "fcntl(0x1, 0x407"],
  ["execveat-path", "execveat("],
  ["files-limit:", "prlimit64(0x0, 0x7"],
  ["x32-getpid", "number 39 of another ABI"],
  ["int80-getpid", "number 20 of another ABI"],
  ["no-such-call", "number 4000"],
];

test("a forbidden system call is not made, ends the microVM, and is named", async () => {
  await each(forbidden, async (entry) => {
    const [name, call] = typeof entry === "string" ? [entry, `${entry}(`] : entry;
    const { said, exit } = await attempt(name);
    assert.equal(said, "", `${name} returned`);
    assert.equal(exit.cause, "violation", `${name}: ${exit.detail}`);
    const begin = `The hypervisor process made the forbidden system call ${call}`;
    assert.ok(exit.detail.startsWith(begin), `${exit.detail}, not ${begin}`);
  });
});

test("a guest's kernel tells which call its stub process was not let make", async () => {
  const { exit } = await attempt("stub-violation");
  assert.equal(exit.cause, "violation");
  assert.equal(exit.detail, "A guest's process was not let make the system call socket");
});

/** Calls that are allowed, on what a jail must not have: what the attempt says. */
const refused: readonly (readonly [attempt: string, answer: RegExp])[] = [
  ["clone3", /^ENOSYS$/],
  ["read:/etc/passwd", /^ENOENT$/],
  ["read:/etc/shadow", /^ENOENT$/],
  ["read:/root", /^ENOENT$/],
  ["read:/sys/kernel", /^ENOENT$/],
  ["read:/dev/mem", /^ENOENT$/],
  ["read:/dev/kvm", /^ENOENT$/],
  ["read:/dev/fuse", /^ENOENT$/],
  ["read:/dev/net/tun", /^ENOENT$/],
  ["read:/proc", /^ENOENT$/],
  ["write:/kernel", /^(EROFS|EACCES|ETXTBSY)$/],
  ["write:/enter", /^(EROFS|EACCES|ETXTBSY)$/],
  ["write:/drive0", /^(EROFS|EACCES)$/],
  ["create:/drives/x", /^(EROFS|EACCES)$/],
  ...(ROOT ? [["create:/scratch/x", /^(EROFS|EACCES)$/] as const] : []),
  ["create:/x", /^EROFS$/],
  ["mkdir:/x", /^EROFS$/],
  ["unlink:/kernel", /^(EROFS|EBUSY|EACCES)$/],
  ["fill:/own", /^(\d|[1-5]\d|6[0-4]) KiB, then ENOSPC$/],
  ["grow:11264", /^EFBIG$/],
  ["connect:/run/dbus/system_bus_socket", /^ENOENT$/],
  ["connect-abstract:", /^ECONNREFUSED$/],
  ["kill:2", /^ESRCH$/],
  ["kill:-1", /^ESRCH$/],
];

test("what a jail must not have is not there", async () => {
  // What the attempt to reach an abstract socket would find, were it the host's network namespace.
  const server = createServer().listen("\0hearth-attack");
  try {
    await each(refused, async ([name, answer]) => {
      const { said, exit } = await attempt(name);
      assert.match(said, answer, `${name}: ${exit.detail}`);
      assert.equal(exit.cause, "guest", exit.detail);
    });
  } finally {
    server.close();
  }
});

test("another microVM's sockets are out of reach", async () => {
  const other = new UmlHypervisor({ runDir: guest.runDir });
  await using microVm = await other.spawn({
    id: "other",
    memoryMib: 64,
    drives: [{ path: guest.image, readOnly: true }],
    init: "/init",
  });
  const socket = join(guest.runDir, microVm.id, "host", "vsock.sock");
  assert.ok(existsSync(socket));
  assert.equal((await attempt(`connect:${socket}`)).said, "ENOENT");
  assert.equal((await attempt("connect:/host/vsock.sock")).said, "done");
});

test("what is allowed is done: the attacks above could succeed", async () => {
  for (const name of ["read:/kernel", "write:/dev/null", "create:/own/x", "mkdir:/own/y", "grow:100", "allocate:16"])
    assert.equal((await attempt(name)).said, "done", name);
});

test("a jail inherits nothing", async () => {
  assert.equal((await attempt("inherited:")).said, "0 1 2 PWD=/ done");
});

test("processes and memory end at the jail's limits", { skip: !ROOT && "needs root" }, async () => {
  const bomb = await attempt("fork-bomb:");
  const made = Number(/^(\d+), then (EAGAIN|ENOMEM)$/.exec(bomb.said)?.[1] ?? Number.NaN);
  // With many processes the memory of the group may end before their number does.
  if (bomb.exit.signal !== "SIGKILL") assert.ok(made > 100 && made <= JAIL_PIDS_MAX, bomb.said);
  const { said, exit } = await attempt("allocate:1024");
  assert.deepEqual([said, exit.cause, exit.signal], ["", "crashed", "SIGKILL"]);
});

/** A field of /proc/PID/status. */
const statusOf = (pid: number, field: string): string =>
  new RegExp(`^${field}:[ \\t]*(.*)$`, "m").exec(readFileSync(`/proc/${String(pid)}/status`, "utf8"))?.[1]?.trim() ??
  "";

test("a running microVM, as the host sees it", async () => {
  const own = new UmlHypervisor({ runDir: guest.runDir });
  await using microVm = await own.spawn({
    id: "seen",
    memoryMib: 64,
    drives: [{ path: guest.image, readOnly: true }],
    init: "/init",
  });
  await new Promise((resolve) => {
    microVm.listen(1024, resolve);
  });
  const [bwrap = 0, kernel = 0, ...processes] = await processTree((await microVm.stats()).pid);
  assert.ok(processes.length > 0);
  const user = statSync(`/proc/${String(kernel)}`).uid;
  if (ROOT) assert.ok(user >= JAIL_USER_FIRST);

  for (const pid of [kernel, ...processes]) {
    assert.equal(statusOf(pid, "Seccomp"), "2");
    for (const set of ["Inh", "Prm", "Eff", "Bnd", "Amb"]) assert.equal(statusOf(pid, `Cap${set}`), "0".repeat(16));
  }
  for (const pid of [bwrap, kernel, ...processes]) {
    assert.equal(statusOf(pid, "NoNewPrivs"), "1");
    assert.equal(statusOf(pid, "CapEff"), "0".repeat(16));
    assert.equal(statusOf(pid, "Groups"), ROOT ? "" : statusOf(process.pid, "Groups"));
    for (const kind of ["Uid", "Gid"])
      assert.deepEqual(new Set(statusOf(pid, kind).split("\t")), new Set([String(user)]));
  }
  for (const name of ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]) {
    const ours = readlinkSync(`/proc/self/ns/${name}`);
    assert.notEqual(readlinkSync(`/proc/${String(kernel)}/ns/${name}`), ours, name);
  }
  const descriptors = `/proc/${String(kernel)}/fd`;
  const allowed = /^(\/dev\/null|socket:.*|anon_inode:.*|\/memfd:(guest-memory|uml-userspace) \(deleted\)|\/drive0)$/;
  for (const fd of readdirSync(descriptors)) assert.match(readlinkSync(`${descriptors}/${fd}`), allowed);
  for (const pid of processes)
    for (const fd of readdirSync(`/proc/${String(pid)}/fd`)) {
      const target = readlinkSync(`/proc/${String(pid)}/fd/${fd}`);
      if (target === "/memfd:guest-memory (deleted)") continue;
      // Whose pages it maps, and no more: open for reading only (proc_pid_fdinfo(5), the access mode of O_RDONLY).
      assert.equal(target, "/drive0");
      assert.match(readFileSync(`/proc/${String(pid)}/fdinfo/${fd}`, "utf8"), /^flags:\t\d*[04]$/m);
    }

  const mounts = readFileSync(`/proc/${String(kernel)}/mountinfo`, "utf8")
    .trim()
    .split("\n");
  const writable = mounts.map((line) => line.split(" ")).filter(([, , , , , options = ""]) => /^rw\b/.test(options));
  assert.deepEqual(new Set(writable.map(([, , , , point]) => point)), new Set(["/dev/null", "/own", "/scratch"]));
  assert.ok(mounts.every((line) => !/ - (proc|sysfs|cgroup|cgroup2|devpts) /.test(line)));
  const limits = readFileSync(`/proc/${String(kernel)}/limits`, "utf8");
  for (const limit of [
    /core file size +0 +0 /,
    /locked memory +0 +0 /,
    /msgqueue size +0 +0 /,
    /open files +256 +256 /,
  ])
    assert.match(limits, limit);
});
