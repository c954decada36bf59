/*
 * Preloaded into a Hearth whose system calls are to fail: HEARTH_FAIL_CONTROL names a file of `struct control`, which a
 * test changes while Hearth runs. The n-th call of `function` from then on fails with `error`; `hits` says that it did.
 * Programs that Hearth starts are not counted: the variables are taken away at once.
 *
 * Failed are calls that a host refuses when it has run out of something. Of mmap only that of a file that others see too
 * (a guest's memory, SQLite's index): the memory of V8 itself ends the process, which no program can mend.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* FIELDS of test/crash/failures.ts */
struct control {
	atomic_int left; /* calls until the one that fails; 0: none does */
	int error;
	atomic_int hits;
	char function[32];
};

static struct control none, *control = &none;

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("HEARTH_FAIL_CONTROL");
	int fd = path ? ((int (*)(const char *, int, ...))next("open"))(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd >= 0) {
		void *mapped = ((void *(*)(void *, size_t, int, int, int, off_t))next("mmap"))(
			NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (mapped != MAP_FAILED)
			control = mapped;
		close(fd);
	}
	unsetenv("HEARTH_FAIL_CONTROL");
	unsetenv("LD_PRELOAD");
}

/* Whether this call is the one that fails; errno is set then. */
static int fails(const char *name)
{
	if (atomic_load(&control->left) <= 0 || strncmp(name, control->function, sizeof(control->function)) != 0 ||
	    atomic_fetch_sub(&control->left, 1) != 1)
		return 0;
	atomic_fetch_add(&control->hits, 1);
	errno = control->error;
	return 1;
}

#define WRAP_AS(label, result, failure, name, parameters, arguments)           \
	result name parameters                                                 \
	{                                                                      \
		static result(*real) parameters;                               \
                                                                               \
		if (fails(label))                                              \
			return failure;                                        \
		if (!real)                                                     \
			real = (result(*) parameters)next(#name);              \
		return real arguments;                                         \
	}
#define WRAP(name, parameters, arguments) WRAP_AS(#name, int, -1, name, parameters, arguments)

WRAP(socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends))
WRAP_AS("accept", int, -1, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags),
	(fd, address, length, flags))
WRAP_AS("pipe", int, -1, pipe2, (int ends[2], int flags), (ends, flags))
WRAP(epoll_ctl, (int set, int operation, int fd, struct epoll_event *event), (set, operation, fd, event))
WRAP(fsync, (int fd), (fd))
WRAP(fdatasync, (int fd), (fd))
WRAP(mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(rename, (const char *from, const char *to), (from, to))
WRAP(link, (const char *from, const char *to), (from, to))
WRAP(ftruncate, (int fd, off_t length), (fd, length))
WRAP_AS("ftruncate", int, -1, ftruncate64, (int fd, off64_t length), (fd, length))
WRAP(unshare, (int flags), (flags))
WRAP_AS("pwrite", ssize_t, -1, pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
WRAP_AS("pwrite", ssize_t, -1, pwrite64, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at))
WRAP_AS("opendir", DIR *, NULL, opendir, (const char *path), (path))
WRAP_AS("opendir", int, -1, scandir,
	(const char *path, struct dirent ***names, int (*filter)(const struct dirent *),
	 int (*compare)(const struct dirent **, const struct dirent **)),
	(path, names, filter, compare))
WRAP_AS("opendir", int, -1, scandir64,
	(const char *path, struct dirent64 ***names, int (*filter)(const struct dirent64 *),
	 int (*compare)(const struct dirent64 **, const struct dirent64 **)),
	(path, names, filter, compare))

/* Only of regular files: what goes to a terminal, a pipe or a log is no place where a disk can be full. */
ssize_t write(int fd, const void *bytes, size_t count)
{
	static ssize_t (*real)(int, const void *, size_t);
	struct stat status;

	if (atomic_load(&control->left) > 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && fails("write"))
		return -1;
	if (!real)
		real = (ssize_t(*)(int, const void *, size_t))next("write");
	return real(fd, bytes, count);
}

static int open_as(const char *name, const char *path, int flags, mode_t mode)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))next(name);

	return fails("open") ? -1 : real(path, flags, mode);
}

static mode_t mode_of(int flags, va_list rest)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list rest;
	mode_t mode;

	va_start(rest, flags);
	mode = mode_of(flags, rest);
	va_end(rest);
	return open_as("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list rest;
	mode_t mode;

	va_start(rest, flags);
	mode = mode_of(flags, rest);
	va_end(rest);
	return open_as("open64", path, flags, mode);
}

static void *map_as(const char *name, void *address, size_t length, int protection, int flags, int fd, off64_t at)
{
	void *(*real)(void *, size_t, int, int, int, off64_t) = (void *(*)(void *, size_t, int, int, int, off64_t))next(name);

	if (fd >= 0 && (flags & MAP_SHARED) && fails("mmap"))
		return MAP_FAILED;
	return real(address, length, protection, flags, fd, at);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t at)
{
	return map_as("mmap", address, length, protection, flags, fd, at);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t at)
{
	return map_as("mmap64", address, length, protection, flags, fd, at);
}

/* What starts a microVM. Only with these four parameters, as native/binding calls it. */
int clone(int (*run)(void *), void *stack, int flags, void *data, ...)
{
	static int (*real)(int (*)(void *), void *, int, void *, ...);

	if (fails("clone"))
		return -1;
	if (!real)
		real = (int (*)(int (*)(void *), void *, int, void *, ...))next("clone");
	return real(run, stack, flags, data);
}
