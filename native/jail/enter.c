/*
 * The last step into a jail, run by bwrap in place of the program: installs the seccomp filter, hands the descriptor
 * that hears of its violations to the monitor, and becomes the program. bwrap can install a filter itself, but
 * not one with such a descriptor, and without it nobody learns which call was refused.
 *
 *     jail-enter DIRECTORY PROGRAM ARGUMENT…
 *
 * Descriptor 3 is a socket (SOCK_SEQPACKET) to the monitor, which has sent the filter as one message: an array of
 * struct sock_filter. The answer is one byte with the filter's listener and DIRECTORY, as which the monitor reaches the
 * program's own files. The program gets descriptors 0, 1 and 2 only, and
 * one word as its environment, because a UML kernel finds the end of its stack by it. Any failure is said on
 * descriptor 2 and ends with code 125.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MONITOR 3
#define FAILURE 125
/* FILTER_INSTRUCTIONS_MAX in src/vmm/limits.ts */
#define INSTRUCTIONS_MAX 1024

static void fail(const char *what)
{
	const char *parts[] = { "jail: cannot ", what, ": ", strerror(errno), "\n" };

	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		if (write(2, parts[i], strlen(parts[i])) < 0)
			break;
	_exit(FAILURE);
}

static void send_descriptors(const int descriptors[2])
{
	union {
		struct cmsghdr header; /* for its alignment */
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	char byte = 0;
	struct iovec vector = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
	};

	memset(&control, 0, sizeof(control));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(2 * sizeof(int));
	memcpy(CMSG_DATA(&control.header), descriptors, 2 * sizeof(int));
	if (sendmsg(MONITOR, &message, MSG_NOSIGNAL) != 1)
		fail("reach the monitor");
}

int main(int argc, char **argv)
{
	static struct sock_filter instructions[INSTRUCTIONS_MAX];
	struct sock_fprog filter = { .filter = instructions };
	char *const environment[] = { "PWD=/", NULL };
	int program, descriptors[2];
	ssize_t bytes;

	descriptors[1] = open(argc > 2 ? argv[1] : "", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (descriptors[1] < 0)
		fail("open its directory");
	program = open(argv[2], O_PATH | O_CLOEXEC);
	if (program < 0)
		fail("open the program");
	bytes = recv(MONITOR, instructions, sizeof(instructions), 0);
	if (bytes <= 0 || (size_t)bytes % sizeof(*instructions) != 0)
		fail("get its filter");
	filter.len = (unsigned short)((size_t)bytes / sizeof(*instructions));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail("give up new privileges");
	/* What it writes beyond its limit (RLIMIT_FSIZE, lowered when the host's scratch is used up) is an error, not its end. */
	signal(SIGXFSZ, SIG_IGN);
	/* From here on only calls that the filter allows. */
	descriptors[0] = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
	if (descriptors[0] < 0)
		fail("install its filter");
	send_descriptors(descriptors);
	syscall(SYS_close_range, MONITOR, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
	syscall(SYS_execveat, program, "", argv + 2, environment, AT_EMPTY_PATH);
	fail("run the program");
}
