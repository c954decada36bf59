import { constants } from "node:os";

import { ResourceLimit } from "../../native.ts";
import { callName, describeViolation, type AllowedCall, type FilterRules, type Violation } from "../../jail/seccomp.ts";
import type { MicroVmExit } from "../../microvm.ts";

/*
 * What a UML kernel asks of its host, read from arch/um/os-Linux, arch/um/drivers and arch/um/kernel/skas/stub_exe.c of
 * its source and seen in runs. Its guest's processes inherit the filter, and what they make as they start (the stub) is
 * here too. Then each gives itself a second one (images/kernel/patches, uml-0012) that leaves it mmap of guest memory
 * and munmap. Of their own system calls none reaches either: ptrace's SYSEMU takes those away before.
 */

const PTRACE = {
  traceMe: 0,
  peekUser: 3,
  pokeUser: 6,
  continue: 7,
  kill: 8,
  getRegisters: 12,
  setRegisters: 13,
  getFloatingPoint: 14,
  setFloatingPoint: 15,
  systemCall: 24,
  archPrctl: 30,
  emulate: 31,
  emulateStep: 32,
  setOptions: 0x4200,
  getSignal: 0x4202,
  getRegisterSet: 0x4204,
  setRegisterSet: 0x4205,
} as const;
const CLONE_NAMESPACES = 0x7e02_0080; // CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const AT_EMPTY_PATH = 0x1000;
const SECCOMP_SET_MODE_FILTER = 1;
const PUNCH_HOLE_KEEP_SIZE = 3; // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
const ADDR_NO_RANDOMIZE = 0x4_0000;
const PRCTL = { deathSignal: 1, name: 15, noNewPrivileges: 38 } as const;
const ARCH_PRCTL = { setGs: 0x1001, setFs: 0x1002, getFs: 0x1003, getGs: 0x1004 } as const;
const IOCTL = { getTerminal: 0x5401, windowSize: 0x5413 } as const;
const FCNTL = {
  getFd: 1,
  setFd: 2,
  getFl: 3,
  setFl: 4,
  getLock: 5,
  setLock: 6,
  setOwner: 8,
  setSignal: 10,
  addSeals: 1033,
};

const checked: readonly AllowedCall[] = [
  // First, for it is made several times for every system call of a guest. No attaching to anyone else.
  { name: "ptrace", checks: [{ argument: 0, oneOf: Object.values(PTRACE) }] },
  { name: "fcntl", checks: [{ argument: 1, oneOf: Object.values(FCNTL) }] },
  // Only the abort of a kernel that panicked sends SIGABRT, to itself. As PID 1 it would not die of it; so it is told.
  { name: "kill", checks: [{ argument: 1, noneOf: [constants.signals.SIGABRT] }] },
  // The kernel tells by SIGSYS to nobody which call one of its guest's processes was not let make.
  { name: "tgkill", checks: [{ argument: 2, noneOf: [constants.signals.SIGABRT, constants.signals.SIGSYS] }] },
  // A guest's process gives itself the stricter filter of its kernel's making: nothing takes a filter away.
  {
    name: "seccomp",
    checks: [
      { argument: 0, oneOf: [SECCOMP_SET_MODE_FILTER] },
      { argument: 1, oneOf: [0] },
    ],
  },
  // What is deleted on a scratch drive becomes a hole in its file.
  { name: "fallocate", checks: [{ argument: 1, oneOf: [PUNCH_HOLE_KEEP_SIZE] }] },
  { name: "clone", checks: [{ argument: 0, withoutBits: CLONE_NAMESPACES }] },
  { name: "execveat", checks: [{ argument: 4, oneOf: [AT_EMPTY_PATH] }] },
  {
    name: "socket",
    checks: [
      { argument: 0, oneOf: [AF_UNIX] },
      { argument: 1, oneOf: [SOCK_STREAM, SOCK_DGRAM] },
    ],
  },
  {
    name: "socketpair",
    checks: [
      { argument: 0, oneOf: [AF_UNIX] },
      { argument: 1, oneOf: [SOCK_STREAM, SOCK_DGRAM] },
    ],
  },
  // Of its own limits it looks at these two: how long its files may be is the host's to say, at any time.
  { name: "prlimit64", checks: [{ argument: 1, oneOf: [ResourceLimit.stackBytes, ResourceLimit.coreBytes] }] },
  { name: "ioctl", checks: [{ argument: 1, oneOf: Object.values(IOCTL) }] },
  { name: "prctl", checks: [{ argument: 0, oneOf: Object.values(PRCTL) }] },
  { name: "arch_prctl", checks: [{ argument: 0, oneOf: Object.values(ARCH_PRCTL) }] },
  { name: "personality", checks: [{ argument: 0, oneOf: [ADDR_NO_RANDOMIZE] }] },
];

/** By what they are for: memory, descriptors, files, waiting and time, processes and signals, the C library's start. */
const UNCHECKED = `
  mmap munmap mprotect brk madvise memfd_create ftruncate
  read write pread64 preadv2 pwrite64 lseek close close_range dup dup2 pipe2 eventfd2 signalfd4 poll ppoll
  epoll_create epoll_ctl epoll_wait sendmsg recvmsg sendto recvfrom bind connect
  openat access fstat newfstatat readlink mkdir unlink rmdir getdents64 fdatasync
  clock_gettime clock_nanosleep timer_create timer_settime
  futex restart_syscall rt_sigsuspend
  wait4 getpid getppid gettid setsid sched_yield exit exit_group
  rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
  set_tid_address set_robust_list rseq uname getrandom
`;

export const UML_RULES: FilterRules = {
  allowed: [
    ...checked,
    ...UNCHECKED.trim()
      .split(/\s+/)
      .map((name) => ({ name, checks: [] })),
  ],
  // The C library takes clone instead, whose flags can be looked at.
  absent: ["clone3"],
};

/** Why a microVM whose kernel made a reported call is ended. */
export const endByViolation = (violation: Violation): Pick<MicroVmExit, "cause" | "detail"> => {
  const { call, args } = violation;
  const signal = { kill: args[1], tgkill: args[2] }[call];
  if (signal === BigInt(constants.signals.SIGABRT)) return { cause: "crashed", detail: "The guest's kernel panicked" };
  const made =
    call === "tgkill" && signal === BigInt(constants.signals.SIGSYS)
      ? `A guest's process was not let make the system call ${callName(Number(args[1]))}`
      : `The hypervisor process made the forbidden system call ${describeViolation(violation)}`;
  return { cause: "violation", detail: made };
};
