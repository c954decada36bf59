/*
 * A guest program, run as PID 1, that uses memory. Says "hello\n" on the host's vsock port 1024, then does what it is told, a
 * line each: `meminfo` answers "TOTAL FREE AVAILABLE\n" in kB, `fill MB` takes memory, writes all of it, reads it back and answers
 * "filled WRONG\n", `drop` gives it back and answers "dropped\n".
 */
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (1024UL * 1024)

static long field(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[256];
	long value = -1;

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0)
			value = strtol(line + strlen(name) + 1, NULL, 10);
	if (file)
		fclose(file);
	return value;
}

/* Every page has its own number at both ends. */
static long fill(unsigned long *words, size_t bytes)
{
	size_t pages = bytes / 4096, per_page = 4096 / sizeof(*words);
	long wrong = 0;

	for (size_t i = 0; i < pages; i++)
		words[i * per_page] = words[i * per_page + per_page - 1] = i * 2654435761UL;
	for (size_t i = 0; i < pages; i++)
		wrong += words[i * per_page] != i * 2654435761UL || words[i * per_page + per_page - 1] != i * 2654435761UL;
	return wrong;
}

int main(void)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1024 };
	int stream = socket(AF_VSOCK, SOCK_STREAM, 0);
	unsigned long *words = NULL;
	size_t bytes = 0;
	char line[64];
	FILE *input;

	if (connect(stream, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 1;
	mount("proc", "/proc", "proc", 0, NULL);
	input = fdopen(stream, "r");
	dprintf(stream, "hello\n");
	while (fgets(line, sizeof(line), input)) {
		if (strcmp(line, "meminfo\n") == 0) {
			dprintf(stream, "%ld %ld %ld\n", field("MemTotal:"), field("MemFree:"), field("MemAvailable:"));
		} else if (strncmp(line, "fill ", 5) == 0) {
			bytes = strtoul(line + 5, NULL, 10) * MIB;
			words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			dprintf(stream, "filled %ld\n", words == MAP_FAILED ? -1 : fill(words, bytes));
		} else {
			munmap(words, bytes);
			dprintf(stream, "dropped\n");
		}
	}
	return 0;
}
