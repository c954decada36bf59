/* Guest memory: a sealed memfd mapped as an ArrayBuffer. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct mapping {
	void *address; /* NULL once unmapped */
	size_t bytes;
};

/*
 * V8 counts an external ArrayBuffer as if its pages came from the heap and collects garbage accordingly. Guest
 * memory costs this process address space only, so what V8 will add is taken off first. Its count must not become
 * negative, and more than 64 MiB added at once starts a collection: hence the reserve and the limit on a slice.
 */
#define SLICE_BYTES_MAX (32 * 1024 * 1024)

static void adjust_accounting(napi_env env, int64_t bytes)
{
	int64_t total;

	NAPI_OK(napi_adjust_external_memory(env, bytes, &total));
}

static void mapping_finalize(napi_env env, void *data, void *hint)
{
	struct mapping *mapping = hint;

	(void)data;
	if (mapping->address) {
		munmap(mapping->address, mapping->bytes);
		adjust_accounting(env, (int64_t)mapping->bytes);
	}
	free(mapping);
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
 * mapMemory(fd, offset, bytes): an ArrayBuffer of at most SLICE_BYTES_MAX, or a negative errno: EMEDIUMTYPE not a memfd, EPERM not sealed
 * against shrinking, ERANGE shorter than the region. The descriptor may be closed afterwards.
 */
static napi_value map_memory(napi_env env, napi_callback_info info)
{
	struct mapping *mapping;
	napi_value argument[3], buffer;
	uint64_t offset;
	size_t bytes;
	int fd, error;

	arguments(env, info, argument, 3);
	fd = to_int(env, argument[0]);
	offset = (uint64_t)to_double(env, argument[1]);
	bytes = (size_t)to_double(env, argument[2]);
	error = check_memory_file(fd, offset + bytes);
	if (error)
		return from_int(env, error);

	mapping = malloc(sizeof(*mapping));
	if (!mapping)
		return from_int(env, -ENOMEM);
	mapping->bytes = bytes;
	mapping->address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);
	if (mapping->address == MAP_FAILED) {
		error = errno;
		free(mapping);
		return from_int(env, -error);
	}
	/* A child made by fork needs none of this, and a core dump must not hold a guest's memory. */
	madvise(mapping->address, bytes, MADV_DONTFORK);
	madvise(mapping->address, bytes, MADV_DONTDUMP);
	adjust_accounting(env, -(int64_t)bytes);
	NAPI_OK(napi_create_external_arraybuffer(env, mapping->address, bytes, mapping_finalize, mapping, &buffer));
	NAPI_OK(napi_wrap(env, buffer, mapping, NULL, NULL, NULL));
	return buffer;
}

/* unmapMemory(buffer): detaches it (views become empty) and unmaps. 0, or -EINVAL when it was unmapped before. */
static napi_value unmap_memory(napi_env env, napi_callback_info info)
{
	struct mapping *mapping = NULL;
	napi_value argument[1];
	void *address;
	size_t bytes;

	arguments(env, info, argument, 1);
	if (napi_remove_wrap(env, argument[0], (void **)&mapping) != napi_ok)
		return from_int(env, -EINVAL);
	/* The finalizer may run inside the call and frees `mapping`: take what is needed first. */
	address = mapping->address;
	bytes = mapping->bytes;
	mapping->address = NULL;
	NAPI_OK(napi_detach_arraybuffer(env, argument[0]));
	adjust_accounting(env, (int64_t)bytes);
	return from_result(env, munmap(address, bytes));
}

void memory_register(napi_env env, napi_value exports)
{
	adjust_accounting(env, SLICE_BYTES_MAX);
	export_function(env, exports, "mapMemory", map_memory);
	export_function(env, exports, "unmapMemory", unmap_memory);
}
