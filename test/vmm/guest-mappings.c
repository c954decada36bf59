/*
 * A guest program, run as PID 1, that maps files of its image in all the ways there are and compares. Says "hello\n" on the
 * host's vsock port 1024, then does what it is told, a line each: `sum` maps and adds up /big, `check` does everything else and says
 * what was wrong, in a line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static size_t size_of(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 ? (size_t)status.st_size : 0;
}

static unsigned char *map(const char *path, int protection, int flags, size_t *size)
{
	int fd = open(path, O_RDONLY);
	void *at;

	*size = size_of(fd);
	at = mmap(NULL, *size, protection, flags, fd, 0);
	close(fd);
	return at == MAP_FAILED ? NULL : at;
}

/* What read(2) says is in a file; the caller's. */
static unsigned char *content(const char *path, size_t size)
{
	unsigned char *bytes = malloc(size);
	int fd = open(path, O_RDONLY);

	for (size_t at = 0; at < size;) {
		ssize_t got = read(fd, bytes + at, size - at);

		if (got <= 0)
			break;
		at += (size_t)got;
	}
	close(fd);
	return bytes;
}

static unsigned long sum(void)
{
	size_t size;
	const unsigned char *bytes = map("/big", PROT_READ, MAP_SHARED, &size);
	unsigned long total = 0;

	for (size_t i = 0; i < size; i++)
		total += bytes[i];
	munmap((void *)bytes, size);
	return total;
}

static sigjmp_buf back;

static void on_bus(int number)
{
	siglongjmp(back, number);
}

static const char *read_only(const char *path)
{
	size_t size;
	unsigned char *mapped = map(path, PROT_READ, MAP_PRIVATE, &size);
	unsigned char *wanted = content(path, size);
	size_t in_page = size % PAGE ? PAGE - size % PAGE : 0;

	if (!mapped || memcmp(mapped, wanted, size) != 0)
		return "content";
	for (size_t i = 0; i < in_page; i++)
		if (mapped[size + i] != 0)
			return "bytes behind the end";
	munmap(mapped, size);
	free(wanted);
	return NULL;
}

/* Writes of one's own are one's own: after reading and before, and in a child. */
static const char *private_writes(void)
{
	size_t size;
	unsigned char *mapped = map("/big", PROT_READ | PROT_WRITE, MAP_PRIVATE, &size);
	unsigned char *wanted = content("/big", size);
	int status = 0;
	pid_t child;

	for (size_t at = 0; at < size; at += 3 * PAGE) {
		if (at % 2 == 0 && mapped[at + 1] != wanted[at + 1])
			return "a read before a write";
		mapped[at] ^= 0xff;
	}
	child = fork();
	if (child == 0) {
		for (size_t at = PAGE; at < size; at += 7 * PAGE)
			mapped[at] ^= 0x0f;
		_exit(mapped[PAGE] == (wanted[PAGE] ^ 0x0f) ? 0 : 1);
	}
	waitpid(child, &status, 0);
	if (status != 0)
		return "a child's write";
	for (size_t at = 0; at < size; at++)
		if (mapped[at] != (at % (3 * PAGE) == 0 ? wanted[at] ^ 0xff : wanted[at]))
			return "what was written, or not";
	munmap(mapped, size);
	free(wanted);
	return read_only("/big");
}

static const char *protection_changes(void)
{
	size_t size;
	unsigned char *mapped = map("/big", PROT_READ, MAP_PRIVATE, &size);
	unsigned char first = mapped[0], other = mapped[5 * PAGE];

	if (mprotect(mapped, size, PROT_READ | PROT_WRITE) < 0)
		return "mprotect";
	mapped[0] = (unsigned char)(first + 1);
	if (mapped[0] != (unsigned char)(first + 1) || mapped[5 * PAGE] != other)
		return "a write after mprotect";
	if (madvise(mapped, size, MADV_DONTNEED) < 0 || mapped[0] != first)
		return "what comes back after MADV_DONTNEED";
	munmap(mapped, size);
	mapped = map("/big", PROT_READ | PROT_WRITE, MAP_SHARED, &size);
	return mapped == NULL ? NULL : "a writable shared mapping";
}

static const char *beyond_the_end(void)
{
	int fd = open("/tail", O_RDONLY);
	size_t size = size_of(fd), whole = (size + PAGE - 1) / PAGE * PAGE;
	volatile unsigned char *mapped = mmap(NULL, whole + PAGE, PROT_READ, MAP_PRIVATE, fd, 0);

	close(fd);
	signal(SIGBUS, on_bus);
	if (sigsetjmp(back, 1) == 0) {
		fprintf(stderr, "%d", mapped[whole]);
		return "a page beyond the end";
	}
	return NULL;
}

/* The kernel reads what is mapped, and debuggers do. */
static const char *seen_by_others(void)
{
	size_t size;
	unsigned char *mapped = map("/big", PROT_READ, MAP_PRIVATE, &size);
	unsigned char *wanted = content("/big", size), got[PAGE];
	int ends[2], status;
	pid_t child;
	long word;

	if (pipe(ends) < 0 || write(ends[1], mapped + 8 * PAGE, PAGE) != PAGE || read(ends[0], got, PAGE) != PAGE)
		return "write(2) from a mapping";
	if (memcmp(got, wanted + 8 * PAGE, PAGE) != 0)
		return "what write(2) took";
	child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(mapped[9 * PAGE] == 0x5a ? 0 : 1);
	}
	waitpid(child, &status, 0);
	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, child, mapped + 9 * PAGE, NULL);
	if (errno != 0 || memcmp(&word, wanted + 9 * PAGE, sizeof(word)) != 0)
		return "what a debugger reads";
	if (ptrace(PTRACE_POKEDATA, child, mapped + 9 * PAGE, 0x5aL) < 0)
		return "a debugger's write";
	ptrace(PTRACE_CONT, child, NULL, NULL);
	waitpid(child, &status, 0);
	return status != 0 ? "what a debugger wrote" : mapped[9 * PAGE] == wanted[9 * PAGE] ? NULL : "a debugger's write elsewhere";
}

static const char *check(void)
{
	static const char *const files[] = { "/big", "/tail", "/small", "/init" };
	const char *wrong = NULL;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && !wrong; i++)
		wrong = read_only(files[i]);
	if (!wrong)
		wrong = private_writes();
	if (!wrong)
		wrong = protection_changes();
	if (!wrong)
		wrong = beyond_the_end();
	return wrong ? wrong : seen_by_others();
}

int main(void)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1024 };
	int stream = socket(AF_VSOCK, SOCK_STREAM, 0);
	char line[64];
	FILE *input;

	if (connect(stream, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 1;
	input = fdopen(stream, "r");
	dprintf(stream, "hello\n");
	while (fgets(line, sizeof(line), input)) {
		if (strcmp(line, "sum\n") == 0) {
			dprintf(stream, "%lu\n", sum());
		} else {
			const char *wrong = check();

			dprintf(stream, "%s\n", wrong ? wrong : "good");
		}
	}
	return 0;
}
