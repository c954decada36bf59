import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import type { MicroVmExit } from "../../src/vmm/microvm.ts";
import { compile, TestGuest } from "../vmm/guest.ts";

/*
 * A guest that has taken over its hypervisor process entirely: the attacking program runs in the jail in the kernel's
 * place, with the same command line, filter, namespaces, user and limits.
 */

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
  ..."seccomp sched_setaffinity sched_setscheduler setpriority ioprio_set kcmp".split(" "),
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
  ["prctl-seccomp", "prctl(0x16"],
  ["prctl-mm", "prctl(0x23"],
  ["prctl-ptracer", "prctl(0x59616d61"],
  ["prctl-dumpable", "prctl(0x4"],
  ["personality", "personality(0x400000"],
  ["ioctl-tiocsti", "ioctl(0x0, 0x5412"],
  ["ioctl-clone-file", "ioctl(0x0, 0x40049409"],
  ["fcntl-pipe-size", "fcntl(0x1, 0x407"],
  ["execveat-path", "execveat("],
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
  ["read:/proc/kcore", /^(EACCES|EPERM|ENOENT)$/],
  ["read:/proc/kmsg", /^(EACCES|EPERM|ENOENT)$/],
  ["write:/proc/sysrq-trigger", /^(EACCES|EROFS|ENOENT)$/],
  ["write:/proc/sys/kernel/core_pattern", /^(EACCES|EROFS)$/],
  ["write:/proc/sys/kernel/hostname", /^(EACCES|EROFS)$/],
  ["write:/proc/self/uid_map", /^(EACCES|EPERM)$/],
  ["read:/proc/2/environ", /^ENOENT$/],
  ["write:/kernel", /^(EROFS|EACCES|ETXTBSY)$/],
  ["write:/enter", /^(EROFS|EACCES|ETXTBSY)$/],
  ["write:/proc/self/exe", /^(EROFS|EACCES|ETXTBSY)$/],
  ["write:/drive0", /^(EROFS|EACCES)$/],
  ["create:/drives/x", /^(EROFS|EACCES)$/],
  ["connect:/run/dbus/system_bus_socket", /^ENOENT$/],
  ["connect-abstract:", /^ECONNREFUSED$/],
  ["kill:2", /^ESRCH$/],
  ["kill:-1", /^ESRCH$/],
  ["files-limit:", /^EPERM$/],
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

test("the attacks can succeed: what is allowed is done", async () => {
  assert.equal((await attempt("read:/proc/self/status")).said, "done");
  assert.match(readFileSync("/etc/passwd", "utf8"), /root/);
});
