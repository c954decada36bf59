/*
 * A guest's PID 1, with all rights in there. Connects to the host's vsock port 1024, says "hello", then answers commands, a
 * line each, with a line each: "done" or the error's name, or what is said here.
 *
 *   overwrite        every disk there is, with every trick to make it writable; "NUMBER disks, NUMBER bytes written"
 *   first FILE [BYTES] its first 16 bytes, or so many
 *   node MAJOR MINOR opens a character device of its own making
 *   mount TYPE       of a file system
 *   connect CID PORT over vsock
 *   read FILE, write FILE
 *   call NUMBER      a system call without arguments
 *   allocate         a child takes memory without end; how it ended
 *   fork             children without end; "NUMBER children", when all are gone again
 *   execute WHERE    a child runs code that it has written: to its heap, stack, data, an anonymous mapping, or (jit) one made
 *                    executable afterwards; how it ended
 *   vsyscall         what the vsyscall page says of the time in the year 2001, seconds; or "none"
 *   old-calls        calls of the 32-bit ABI and of the vsyscall page
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[64 * 1024], answer[8192];

static const char *outcome(long result)
{
	return result < 0 ? strerrorname_np(errno) : "done";
}

static int connect_to(unsigned cid, unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : fd;
}

static long overwrite_disk(const char *path)
{
	long written = 0;
	int off = 0, fd = open(path, O_RDWR);

	if (fd < 0) {
		fd = open(path, O_RDONLY);
		ioctl(fd, BLKROSET, &off);
		close(fd);
		fd = open(path, O_RDWR);
	}
	memset(buffer, 0xff, sizeof(buffer));
	for (ssize_t count; (count = write(fd, buffer, sizeof(buffer))) > 0;)
		written += count;
	/* The page cache takes everything: what counts is what reached the disk. */
	if (fsync(fd) < 0 || fd < 0)
		written = 0;
	ioctl(fd, BLKDISCARD, (uint64_t[]){ 0, 1 << 20 });
	ioctl(fd, BLKZEROOUT, (uint64_t[]){ 0, 1 << 20 });
	close(fd);
	return written;
}

static void overwrite(void)
{
	long disks = 0, written = 0;

	for (int i = 0; i < 16; i++) {
		snprintf(buffer, sizeof(buffer), "/dev/ubd%c", 'a' + i);
		if (access(buffer, F_OK) < 0)
			continue;
		disks++;
		written += overwrite_disk(strdup(buffer));
	}
	snprintf(answer, sizeof(answer), "%ld disks, %ld bytes written", disks, written);
}

static long open_node(unsigned major, unsigned minor)
{
	unlink("/dev/node");
	if (mknod("/dev/node", S_IFCHR | 0600, makedev(major, minor)) < 0)
		return -1;
	return open("/dev/node", O_RDWR);
}

static long open_file(const char *path, int flags)
{
	int fd = open(path, flags);
	memset(buffer, 0, 4096);
	ssize_t count = fd < 0 ? -1 : flags == O_RDONLY ? read(fd, buffer, sizeof(buffer)) : write(fd, "0", 1);

	if (fd >= 0)
		close(fd);
	return count;
}

static void allocate(void)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0)
		for (;;)
			memset(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 1 << 20);
	waitpid(child, &status, 0);
	snprintf(answer, sizeof(answer), "signal %d", WTERMSIG(status));
}

static void fork_all(void)
{
	static pid_t children[100000];
	int made = 0;

	for (pid_t child; made < 100000 && (child = fork()) >= 0; made++) {
		if (child == 0)
			for (;;)
				pause();
		children[made] = child;
	}
	for (int i = 0; i < made; i++)
		kill(children[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	snprintf(answer, sizeof(answer), "%d children", made);
}

/* mov $42, %eax; ret */
static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
static unsigned char data[4096];

static void execute(const char *where)
{
	unsigned char stack[64], *place = stack;
	int status;
	pid_t child = fork();

	if (child == 0) {
		if (!strcmp(where, "heap"))
			place = sbrk(4096);
		else if (!strcmp(where, "data"))
			place = data;
		else if (strcmp(where, "stack"))
			place = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(place, code, sizeof(code));
		if (!strcmp(where, "jit"))
			mprotect(place, 4096, PROT_READ | PROT_EXEC);
		__asm__ volatile("" : : "r"(place) : "memory");
		_exit(((int (*)(void))place)());
	}
	waitpid(child, &status, 0);
	if (WIFEXITED(status))
		snprintf(answer, sizeof(answer), "returned %d", WEXITSTATUS(status));
	else
		snprintf(answer, sizeof(answer), "died of %s", sigabbrev_np(WTERMSIG(status)));
}

#define YEAR_2001 1000000000

static void vsyscall(void)
{
	long (*get_time)(long *) = (long (*)(long *))0xffffffffff600400;
	struct timeval then = { .tv_sec = YEAR_2001 };
	int ends[2], status;
	long said = 0;

	settimeofday(&then, NULL);
	if (pipe(ends) == 0 && fork() == 0) {
		said = get_time(NULL);
		_exit(write(ends[1], &said, sizeof(said)) < 0);
	}
	wait(&status);
	if (!WIFEXITED(status) || read(ends[0], &said, sizeof(said)) < 0)
		strcpy(answer, "none");
	else
		snprintf(answer, sizeof(answer), "%ld", said);
}

static void old_calls(void)
{
	int (*get_time)(struct timeval *, void *) = (int (*)(struct timeval *, void *))0xffffffffff600000;
	struct timeval now = { 0 };
	long result;
	int status;
	pid_t child = fork();

	if (child == 0) {
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(102L), "b"(1L), "c"(0L) : "memory"); /* socketcall */
		syscall(0x40000000 + SYS_socket, AF_INET, SOCK_STREAM, 0);
		get_time(&now, NULL);
		_exit(0);
	}
	waitpid(child, &status, 0);
	strcpy(answer, "still here");
}

static void obey(char *command)
{
	char *name = strtok(command, " "), *first = strtok(NULL, " "), *second = strtok(NULL, " ");
	int one = first ? atoi(first) : 0, two = second ? atoi(second) : 0;
	long result = -1;

	errno = ENOTSUP;
	answer[0] = 0;
	if (!strcmp(name, "overwrite"))
		overwrite();
	else if (!strcmp(name, "first"))
		result = open_file(first, O_RDONLY), snprintf(answer, sizeof(answer), "%.*s", two ? two : 16, buffer);
	else if (!strcmp(name, "node"))
		result = open_node((unsigned)one, (unsigned)two);
	else if (!strcmp(name, "mount"))
		result = mount("none", "/tmp", first, 0, "/");
	else if (!strcmp(name, "connect"))
		result = connect_to((unsigned)one, (unsigned)two);
	else if (!strcmp(name, "read"))
		result = open_file(first, O_RDONLY);
	else if (!strcmp(name, "write"))
		result = open_file(first, O_WRONLY);
	else if (!strcmp(name, "call"))
		result = syscall(one, 0, 0, 0, 0, 0, 0);
	else if (!strcmp(name, "allocate"))
		allocate();
	else if (!strcmp(name, "fork"))
		fork_all();
	else if (!strcmp(name, "execute"))
		execute(first);
	else if (!strcmp(name, "vsyscall"))
		vsyscall();
	else if (!strcmp(name, "old-calls"))
		old_calls();
	if (!answer[0])
		strcpy(answer, outcome(result));
	answer[strcspn(answer, "\n")] = 0;
	strcat(answer, "\n");
}

int main(void)
{
	static char command[256];

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	int stream = connect_to(VMADDR_CID_HOST, 1024);

	for (ssize_t count = write(stream, "hello\n", 6); count > 0;) {
		size_t length = 0;

		while (length < sizeof(command) - 1 && (count = read(stream, command + length, 1)) == 1 && command[length] != '\n')
			length++;
		command[length] = 0;
		if (length > 0)
			obey(command);
		count = write(stream, answer, strlen(answer));
	}
	pause();
}
