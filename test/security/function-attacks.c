/*
 * What a function tries in its guest, as the unprivileged user it is: `function-attacks ATTEMPT…` answers a line each, the
 * error's name or "done".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

static char buffer[4096];

static long read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	errno = ENODATA;
	return read(fd, buffer, sizeof(buffer)) > 0 ? 0 : -1;
}

static long write_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -1 : write(fd, "0", 1);
}

static long attempt(const char *name, const char *argument)
{
#define ATTEMPT(is, expression)                                                                                        \
	if (!strcmp(name, is))                                                                                         \
		return (expression);
	ATTEMPT("read", read_file(argument))
	ATTEMPT("write", write_file(argument))
	ATTEMPT("list", open(argument, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
	ATTEMPT("create", open(argument, O_WRONLY | O_CREAT | O_CLOEXEC, 0600))
	ATTEMPT("device", mknod("/tmp/node", S_IFBLK | 0600, makedev(98, 0)))
	ATTEMPT("kill", kill(atoi(argument), SIGKILL))
	ATTEMPT("trace", ptrace(PTRACE_SEIZE, atoi(argument), 0, 0))
	ATTEMPT("mount", mount("x", "/tmp", argument, 0, NULL))
	ATTEMPT("unmount", umount2(argument, MNT_DETACH))
	ATTEMPT("unshare", unshare(atoi(argument)))
	ATTEMPT("socket", socket(atoi(argument), SOCK_STREAM, 0))
	ATTEMPT("raw-socket", socket(atoi(argument), SOCK_RAW, 0))
	ATTEMPT("root", setuid(0))
	ATTEMPT("groups", syscall(SYS_setgroups, 1, (gid_t[]){ 0 }))
	ATTEMPT("chroot", chroot("/tmp"))
	ATTEMPT("reboot", reboot(RB_POWER_OFF))
	ATTEMPT("name", sethostname("x", 1))
	ATTEMPT("clock", settimeofday(&(struct timeval){ 0 }, NULL))
	ATTEMPT("module", syscall(SYS_init_module, buffer, 1, ""))
	ATTEMPT("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0))
	ATTEMPT("bpf", syscall(SYS_bpf, 0, buffer, sizeof(buffer)))
	ATTEMPT("io-uring", syscall(SYS_io_uring_setup, 1, buffer))
	ATTEMPT("userfaultfd", syscall(SYS_userfaultfd, 0))
	ATTEMPT("perf", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0))
	ATTEMPT("keys", syscall(SYS_keyctl, 0, -5, 1))
	ATTEMPT("ports", syscall(SYS_iopl, 3))
	ATTEMPT("priority", syscall(SYS_setpriority, 0, 0, -20))
#undef ATTEMPT
	errno = ENOTSUP;
	return -1;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *argument = strchr(argv[i], ':');
		char *name = argument ? strndup(argv[i], (size_t)(argument - argv[i])) : argv[i];

		errno = 0;
		puts(attempt(name, argument ? argument + 1 : "") < 0 ? strerrorname_np(errno) : "done");
	}
	return 0;
}
