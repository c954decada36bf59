/* File descriptors: their kind, and reads and writes that can never block, whoever else holds the other end. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* close(fd): 0 or -errno. */
static napi_value close_descriptor(napi_env env, napi_callback_info info)
{
	napi_value argument[1];

	arguments(env, info, argument, 1);
	return from_result(env, close(to_int(env, argument[0])));
}

/* fileType(fd): S_IFMT bits of its mode (0 for an anonymous inode such as an eventfd), or -errno. */
static napi_value file_type(napi_env env, napi_callback_info info)
{
	napi_value argument[1];
	struct stat status;

	arguments(env, info, argument, 1);
	if (fstat(to_int(env, argument[0]), &status) < 0)
		return from_result(env, -1);
	return from_int(env, status.st_mode & S_IFMT);
}

/*
 * signal(fd, socket): adds 1 to an eventfd, or sends the same eight bytes through a pipe or (UML) a socket. Never
 * waits, and not by O_NONBLOCK: that flag is shared with the guest's process, which could clear it and stop us here.
 */
static napi_value signal_descriptor(napi_env env, napi_callback_info info)
{
	static const uint64_t one = 1;
	struct iovec vector = { (void *)&one, sizeof(one) };
	napi_value argument[2];
	int fd;

	arguments(env, info, argument, 2);
	fd = to_int(env, argument[0]);
	if (to_int(env, argument[1]))
		return from_result(env, send(fd, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL));
	return from_result(env, pwritev2(fd, &vector, 1, -1, RWF_NOWAIT));
}

/* read(fd, bytes): how many, 0 at the end, or -errno. Of our own non-blocking descriptors only. */
static napi_value read_descriptor(napi_env env, napi_callback_info info)
{
	napi_value argument[2];
	size_t length = 0;
	void *bytes;

	arguments(env, info, argument, 2);
	bytes = to_array(env, argument[1], &length);
	return from_result(env, read(to_int(env, argument[0]), bytes, length));
}

/* write(fd, bytes): how many, or -errno. Of our own non-blocking descriptors only. */
static napi_value write_descriptor(napi_env env, napi_callback_info info)
{
	napi_value argument[2];
	size_t length = 0;
	void *bytes;

	arguments(env, info, argument, 2);
	bytes = to_array(env, argument[1], &length);
	return from_result(env, write(to_int(env, argument[0]), bytes, length));
}

/* pipe(ends, ours): ends[0] for reading, ends[1] for writing; ends[ours] does not block, the other is for a child. */
static napi_value make_pipe(napi_env env, napi_callback_info info)
{
	napi_value argument[2];
	size_t length = 0;
	int *ends;

	arguments(env, info, argument, 2);
	ends = to_array(env, argument[0], &length);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return from_result(env, -1);
	return from_result(env, fcntl(ends[to_int(env, argument[1])], F_SETFL, O_NONBLOCK));
}

void descriptor_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "close", close_descriptor);
	export_function(env, exports, "fileType", file_type);
	export_function(env, exports, "signal", signal_descriptor);
	export_function(env, exports, "read", read_descriptor);
	export_function(env, exports, "write", write_descriptor);
	export_function(env, exports, "pipe", make_pipe);
}
