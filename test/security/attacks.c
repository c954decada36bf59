/*
 * What a hypervisor process would try once its guest has taken it over: run in a jail in the kernel's place. Its last
 * argument names one attempt. It says "done" when the attempt went through, or why it did not, such as "EPERM"; a call
 * that the jail's filter reports never returns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[4096], path[4096];

/* A system call with as many arguments as are given, the others 0. */
#define CALL(...) call((const long[7]){ __VA_ARGS__ })
static long call(const long word[7])
{
	return syscall(word[0], word[1], word[2], word[3], word[4], word[5], word[6]);
}

/* One that is refused whatever its arguments. */
#define PLAIN(name) { #name, SYS_##name }
static const struct {
	const char *name;
	long number;
} plain[] = {
	PLAIN(mount), PLAIN(umount2), PLAIN(pivot_root), PLAIN(chroot), PLAIN(fsopen), PLAIN(fsmount), PLAIN(move_mount),
	PLAIN(open_tree), PLAIN(mount_setattr), PLAIN(unshare), PLAIN(setns), PLAIN(setuid), PLAIN(setgid), PLAIN(setresuid),
	PLAIN(setgroups), PLAIN(setfsuid), PLAIN(capset), PLAIN(bpf), PLAIN(keyctl), PLAIN(add_key), PLAIN(request_key),
	PLAIN(perf_event_open), PLAIN(io_uring_setup), PLAIN(userfaultfd), PLAIN(kexec_load), PLAIN(kexec_file_load),
	PLAIN(reboot), PLAIN(init_module), PLAIN(finit_module), PLAIN(delete_module), PLAIN(process_vm_readv),
	PLAIN(process_vm_writev), PLAIN(process_madvise), PLAIN(pidfd_open), PLAIN(pidfd_getfd), PLAIN(pidfd_send_signal),
	PLAIN(execve), PLAIN(fork), PLAIN(vfork), PLAIN(swapon), PLAIN(acct), PLAIN(syslog), PLAIN(iopl), PLAIN(ioperm),
	PLAIN(modify_ldt), PLAIN(open_by_handle_at), PLAIN(name_to_handle_at), PLAIN(mknod), PLAIN(mknodat), PLAIN(link),
	PLAIN(symlink), PLAIN(rename), PLAIN(chmod), PLAIN(chown), PLAIN(setxattr), PLAIN(openat2),
	PLAIN(sched_setaffinity), PLAIN(sched_setscheduler), PLAIN(setpriority), PLAIN(ioprio_set), PLAIN(kcmp),
	PLAIN(memfd_secret), PLAIN(mlockall), PLAIN(mbind), PLAIN(move_pages), PLAIN(migrate_pages), PLAIN(remap_file_pages),
	PLAIN(splice), PLAIN(vmsplice), PLAIN(tee), PLAIN(fanotify_init), PLAIN(inotify_init1), PLAIN(quotactl),
	PLAIN(settimeofday), PLAIN(clock_settime), PLAIN(adjtimex), PLAIN(sethostname), PLAIN(shmget), PLAIN(msgget),
	PLAIN(semget), PLAIN(mq_open), PLAIN(listen), PLAIN(accept4), PLAIN(setsockopt), PLAIN(landlock_create_ruleset),
	PLAIN(lookup_dcookie), PLAIN(vhangup), PLAIN(getdents), PLAIN(rt_sigqueueinfo), PLAIN(tkill),
};

static long attach(long request)
{
	pid_t child = (pid_t)CALL(SYS_clone, SIGCHLD);

	if (child == 0)
		for (;;)
			usleep(1000);
	return ptrace(request, child, 0, 0);
}

static long write_to(const char *path)
{
	int fd = open(path, O_WRONLY);

	return fd < 0 ? -1 : write(fd, "0\n", 2);
}

/* Bytes that fit into files below a directory, in KiB. */
static long fill(const char *directory)
{
	long bytes = 0;

	for (int i = 0; i < 100000; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/%d", directory, i);
		fd = open(path, O_WRONLY | O_CREAT, 0600);
		for (ssize_t written = 0; fd >= 0 && (written = write(fd, buffer, sizeof(buffer))) > 0;)
			bytes += written;
		if (fd < 0 || close(fd) < 0)
			break;
	}
	printf("%ld KiB, then ", bytes / 1024);
	return -1;
}

static long grow(long mib)
{
	return ftruncate(memfd_create("attack", 0), mib << 20);
}

/* Processes that can be made. */
static long fork_bomb(void)
{
	long made = 0;

	for (pid_t child; (child = (pid_t)CALL(SYS_clone, SIGCHLD)) >= 0; made++)
		if (child == 0)
			for (;;)
				sleep(1000);
	printf("%ld, then ", made);
	return -1;
}

static long allocate(long mib)
{
	for (long i = 0; i < mib; i++)
		memset(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 1 << 20);
	return 0;
}

/* Descriptors that are open, into the buffer; and all that is in the environment. */
static long inherited(char **environment)
{
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("%d ", fd);
	for (; *environment; environment++)
		printf("%s ", *environment);
	return 0;
}

static long connect_to(const char *path, size_t length)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(address.sun_path, path, length);
	return connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

static long int80(long number)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory");
	return result;
}

/* 1 when the name was one of these; `result` is what the call answered. */
static int checked(const char *name, long *result)
{
#define ATTEMPT(is, expression)                                                                                        \
	if (!strcmp(name, is)) {                                                                                       \
		*result = (expression);                                                                                \
		return 1;                                                                                              \
	}
	ATTEMPT("socket-inet", socket(AF_INET, SOCK_STREAM, 0))
	ATTEMPT("socket-inet6", socket(AF_INET6, SOCK_DGRAM, 0))
	ATTEMPT("socket-netlink", socket(AF_NETLINK, SOCK_RAW, 0))
	ATTEMPT("socket-packet", socket(AF_PACKET, SOCK_RAW, 0))
	ATTEMPT("socket-vsock", socket(AF_VSOCK, SOCK_STREAM, 0))
	ATTEMPT("socket-alg", socket(38 /* AF_ALG */, SOCK_SEQPACKET, 0))
	ATTEMPT("socket-unix-raw", socket(AF_UNIX, SOCK_SEQPACKET, 0))
	ATTEMPT("socketpair-inet", socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){ 0 }))
	ATTEMPT("clone-newuser", CALL(SYS_clone, CLONE_NEWUSER | SIGCHLD))
	ATTEMPT("clone-newnet", CALL(SYS_clone, CLONE_NEWNET | SIGCHLD))
	ATTEMPT("clone-newtime", CALL(SYS_clone, 0x80 | SIGCHLD))
	ATTEMPT("clone3", CALL(SYS_clone3, (long)buffer, 88))
	ATTEMPT("ptrace-attach", attach(PTRACE_ATTACH))
	ATTEMPT("ptrace-seize", attach(PTRACE_SEIZE))
	ATTEMPT("seccomp-listener", CALL(SYS_seccomp, 1, 8 /* NEW_LISTENER */, (long)buffer))
	ATTEMPT("fallocate-zeroes", CALL(SYS_fallocate, memfd_create("attack", 0), 0x11, 0, 4096))
	ATTEMPT("stub-violation", CALL(SYS_tgkill, -1, SYS_socket, SIGSYS))
	ATTEMPT("prctl-seccomp", prctl(PR_SET_SECCOMP, 2, buffer))
	ATTEMPT("prctl-mm", prctl(PR_SET_MM, PR_SET_MM_START_CODE, 4096, 0, 0))
	ATTEMPT("prctl-ptracer", prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY))
	ATTEMPT("prctl-dumpable", prctl(PR_SET_DUMPABLE, 1))
	ATTEMPT("personality", personality(PER_LINUX | READ_IMPLIES_EXEC))
	ATTEMPT("ioctl-tiocsti", CALL(SYS_ioctl, 0, 0x5412, (long)buffer))
	ATTEMPT("ioctl-clone-file", CALL(SYS_ioctl, 0, 0x40049409))
	ATTEMPT("fcntl-pipe-size", CALL(SYS_fcntl, 1, (long)F_SETPIPE_SZ, 1 << 20))
	ATTEMPT("execveat-path", CALL(SYS_execveat, AT_FDCWD, (long)"/kernel"))
	ATTEMPT("x32-getpid", CALL(0x40000000 + SYS_getpid))
	ATTEMPT("int80-getpid", int80(20))
	ATTEMPT("no-such-call", CALL(4000))
	return 0;
#undef ATTEMPT
}

/* The call itself is allowed; what it asks for must not be there, or not be given. */
static int objects(const char *name, const char *argument, long *result)
{
#define ATTEMPT(is, expression)                                                                                        \
	if (!strcmp(name, is)) {                                                                                       \
		*result = (expression);                                                                                \
		return 1;                                                                                              \
	}
	ATTEMPT("read", open(argument, O_RDONLY))
	ATTEMPT("write", write_to(argument))
	ATTEMPT("create", open(argument, O_WRONLY | O_CREAT, 0600))
	ATTEMPT("mkdir", mkdir(argument, 0700))
	ATTEMPT("unlink", unlink(argument))
	ATTEMPT("connect", connect_to(argument, strlen(argument)))
	ATTEMPT("connect-abstract", connect_to("\0hearth-attack", 14))
	ATTEMPT("kill", kill(atoi(argument), SIGKILL))
	ATTEMPT("fill", fill(argument))
	ATTEMPT("grow", grow(atol(argument)))
	ATTEMPT("fork-bomb", fork_bomb())
	ATTEMPT("allocate", allocate(atol(argument)))
	ATTEMPT("inherited", inherited(environ))
	ATTEMPT("files-limit", prlimit(0, RLIMIT_NOFILE, &(struct rlimit){ 65536, 65536 }, NULL))
	return 0;
#undef ATTEMPT
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[argc - 1] : "";
	const char *separator = strchr(name, ':');
	long result = 0;
	int known = 0;

	setvbuf(stdout, NULL, _IONBF, 0);
	for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++) {
		if (!strcmp(name, plain[i].name)) {
			result = CALL(plain[i].number);
			known = 1;
		}
	}
	if (!known && separator) {
		char *verb = strndup(name, (size_t)(separator - name));

		known = objects(verb, separator + 1, &result);
	}
	if (!known)
		known = checked(name, &result);
	if (!known)
		puts("no such attempt");
	else if (result < 0)
		puts(errno ? strerrorname_np(errno) : "refused");
	else
		puts("done");
	return 0;
}
