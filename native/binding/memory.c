/* Guest memory: a sealed memfd mapped into an ArrayBuffer. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE_BYTES 4096

/*
 * V8 counts an external ArrayBuffer as if its pages came from the heap and collects garbage accordingly: an ArrayBuffer
 * for each guest's memory meant a collection for each boot. So address space is reserved once, as a large
 * ArrayBuffer that lives on, and guests' memory is put into slices of it and taken out again.
 */
/* What is no guest's can be read, as zeros, and not be written. */
static void *reserve(void *address, size_t bytes)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (address ? MAP_FIXED : 0);
	void *reserved = mmap(address, bytes, PROT_READ, flags, -1, 0);

	if (reserved != MAP_FAILED)
		madvise(reserved, bytes, MADV_DONTFORK);
	return reserved;
}

static void reservation_finalize(napi_env env, void *data, void *hint)
{
	(void)env;
	munmap(data, (size_t)hint);
}

/* reserveMemory(bytes): an ArrayBuffer of address space, or a negative errno. */
static napi_value reserve_memory(napi_env env, napi_callback_info info)
{
	napi_value argument[1], buffer;
	void *address;
	size_t bytes;

	arguments(env, info, argument, 1);
	bytes = (size_t)to_double(env, argument[0]);
	address = reserve(NULL, bytes);
	if (address == MAP_FAILED)
		return from_int(env, -errno);
	NAPI_OK(napi_create_external_arraybuffer(env, address, bytes, reservation_finalize, (void *)bytes, &buffer));
	return buffer;
}

/* Where `bytes` from `at` on lie in a reservation; NULL when they are not all in it, or not whole pages. */
static void *slice_address(napi_env env, napi_value buffer, double at, double bytes)
{
	char *start;
	size_t length;

	NAPI_OK(napi_get_arraybuffer_info(env, buffer, (void **)&start, &length));
	if (at < 0 || bytes <= 0 || at + bytes > (double)length || (size_t)at % PAGE_BYTES || (size_t)bytes % PAGE_BYTES)
		return NULL;
	return start + (size_t)at;
}

/* An access to a mapping whose file was truncated ends this process by SIGBUS, so only a file that cannot shrink will do. */
static int check_memory_file(int fd, uint64_t end)
{
	struct stat status;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0)
		return -EMEDIUMTYPE;
	if (!(seals & F_SEAL_SHRINK))
		return -EPERM;
	if (fstat(fd, &status) < 0)
		return -errno;
	return (uint64_t)status.st_size >= end ? 0 : -ERANGE;
}

/*
 * mapMemory(reservation, at, fd, offset, bytes): 0, or a negative errno: EMEDIUMTYPE not a memfd, EPERM not sealed
 * against shrinking, ERANGE shorter than the region, EINVAL not in the reservation. The descriptor may be closed
 * afterwards.
 */
static napi_value map_memory(napi_env env, napi_callback_info info)
{
	napi_value argument[5];
	double offset, bytes;
	void *address;
	int fd, error;

	arguments(env, info, argument, 5);
	fd = to_int(env, argument[2]);
	offset = to_double(env, argument[3]);
	bytes = to_double(env, argument[4]);
	address = slice_address(env, argument[0], to_double(env, argument[1]), bytes);
	error = address ? check_memory_file(fd, (uint64_t)offset + (uint64_t)bytes) : -EINVAL;
	if (error)
		return from_int(env, error);
	if (mmap(address, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset) == MAP_FAILED)
		return from_int(env, -errno);
	/* A child made by fork needs none of this, and a core dump must not hold a guest's memory. */
	madvise(address, (size_t)bytes, MADV_DONTFORK);
	madvise(address, (size_t)bytes, MADV_DONTDUMP);
	return from_int(env, 0);
}

struct unmapping {
	void *address;
	size_t bytes;
	int error;
	napi_async_work work;
	napi_ref reservation; /* must outlive the work */
	napi_ref done;
};

/*
 * On a thread of the pool: freeing takes 150 ms of CPU time for a GiB. The pages are given up first, by which the lock
 * over this process's address space is held by readers only or not at all; what is left to the change of the mapping is
 * short. A file that may not be written any more (F_SEAL_WRITE) keeps its pages until its last user is gone.
 */
static void unmap_execute(napi_env env, void *data)
{
	struct unmapping *unmapping = data;

	(void)env;
	madvise(unmapping->address, unmapping->bytes, MADV_REMOVE);
	if (reserve(unmapping->address, unmapping->bytes) == MAP_FAILED)
		unmapping->error = errno;
}

/* Back on the loop: done(error). */
static void unmap_complete(napi_env env, napi_status status, void *data)
{
	struct unmapping *unmapping = data;
	napi_value done, receiver, error, ignored;

	(void)status;
	error = from_int(env, -unmapping->error);
	NAPI_OK(napi_get_reference_value(env, unmapping->done, &done));
	NAPI_OK(napi_get_global(env, &receiver));
	NAPI_OK(napi_delete_reference(env, unmapping->done));
	NAPI_OK(napi_delete_reference(env, unmapping->reservation));
	NAPI_OK(napi_delete_async_work(env, unmapping->work));
	free(unmapping);
	NAPI_OK(napi_call_function(env, receiver, done, 1, &error, &ignored));
}

/*
 * unmapMemory(reservation, at, bytes, done): takes a guest's memory out again and frees its pages, off the loop. 0, or a
 * negative errno; then done(0 or a negative errno). Nobody may look there any more.
 */
static napi_value unmap_memory(napi_env env, napi_callback_info info)
{
	struct unmapping *unmapping;
	napi_value argument[4], name;
	double bytes;
	void *address;

	arguments(env, info, argument, 4);
	bytes = to_double(env, argument[2]);
	address = slice_address(env, argument[0], to_double(env, argument[1]), bytes);
	if (!address)
		return from_int(env, -EINVAL);
	unmapping = calloc(1, sizeof(*unmapping));
	if (!unmapping)
		return from_int(env, -ENOMEM);
	unmapping->address = address;
	unmapping->bytes = (size_t)bytes;
	NAPI_OK(napi_create_reference(env, argument[0], 1, &unmapping->reservation));
	NAPI_OK(napi_create_reference(env, argument[3], 1, &unmapping->done));
	NAPI_OK(napi_create_string_utf8(env, "hearth:unmap", NAPI_AUTO_LENGTH, &name));
	NAPI_OK(napi_create_async_work(env, NULL, name, unmap_execute, unmap_complete, unmapping, &unmapping->work));
	NAPI_OK(napi_queue_async_work(env, unmapping->work));
	return from_int(env, 0);
}

void memory_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "reserveMemory", reserve_memory);
	export_function(env, exports, "mapMemory", map_memory);
	export_function(env, exports, "unmapMemory", unmap_memory);
}
