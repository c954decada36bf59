/*
 * Preloaded into a Hearth that is to be killed at a chosen place: counts its calls of one libc function and ends the
 * process with SIGKILL at the n-th of them. HEARTH_CRASH_AT is FUNCTION:N:WHEN[:US], where WHEN is
 *
 *	before   the call is not made
 *	after    the call is done, and nobody hears of it
 *	half     of what pwrite is to write only the first half is written
 *	later    some microseconds (US) after the call began, from another thread: in the midst of what it does
 *
 * Programs that Hearth starts are not counted: the variables are taken away at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char function[32], when[16];
static int number;
static unsigned delay_us;
static atomic_int calls;

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void *die_later(void *unused)
{
	usleep(delay_us);
	die();
	return unused;
}

__attribute__((constructor)) static void start(void)
{
	const char *place = getenv("HEARTH_CRASH_AT");

	if (place && sscanf(place, "%31[^:]:%d:%15[^:]:%u", function, &number, when, &delay_us) < 3)
		function[0] = 0;
	unsetenv("HEARTH_CRASH_AT");
	unsetenv("LD_PRELOAD");
}

/* Whether this call is the one. Dies before it, or sees to it that we die in its midst. */
static int is_the_call(const char *name)
{
	pthread_t thread;

	if (strcmp(name, function) != 0 || atomic_fetch_add(&calls, 1) + 1 != number)
		return 0;
	if (strcmp(when, "before") == 0)
		die();
	if (strcmp(when, "later") == 0)
		pthread_create(&thread, NULL, die_later, NULL);
	return 1;
}

#define DIE_AFTER(is_it)                                  \
	do {                                              \
		if ((is_it) && strcmp(when, "after") == 0) \
			die();                            \
	} while (0)

#define WRAP(result, name, parameters, arguments)                                       \
	result name parameters                                                          \
	{                                                                               \
		static result(*real) parameters;                                        \
		int is_it = is_the_call(#name);                                         \
		result value;                                                           \
                                                                                        \
		if (!real)                                                              \
			real = (result(*) parameters)dlsym(RTLD_NEXT, #name);           \
		value = real arguments;                                                 \
		DIE_AFTER(is_it);                                                       \
		return value;                                                           \
	}

WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, link, (const char *from, const char *to), (from, to))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, rmdir, (const char *path), (path))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(int, fsync, (int file), (file))
WRAP(int, fdatasync, (int file), (file))
WRAP(int, chmod, (const char *path, mode_t mode), (path, mode))

static ssize_t half_write(int file, const void *bytes, size_t count, off_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off_t);
	int is_it = is_the_call("pwrite");
	ssize_t written;

	if (!real)
		real = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
	if (is_it && strcmp(when, "half") == 0) {
		real(file, bytes, count / 2, at);
		die();
	}
	written = real(file, bytes, count, at);
	DIE_AFTER(is_it);
	return written;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at)
{
	return half_write(file, bytes, count, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t at)
{
	return half_write(file, bytes, count, at);
}

/* What starts a microVM. Only with these four parameters, as native/binding calls it. */
int clone(int (*run)(void *), void *stack, int flags, void *data, ...)
{
	static int (*real)(int (*)(void *), void *, int, void *, ...);
	int is_it = is_the_call("clone");
	int pid;

	if (!real)
		real = (int (*)(int (*)(void *), void *, int, void *, ...))dlsym(RTLD_NEXT, "clone");
	pid = real(run, stack, flags, data);
	DIE_AFTER(is_it);
	return pid;
}
