/* Unix sockets with file descriptors in their messages, and datagrams to a peer that is not trusted with its path. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Most descriptors in one message; vhost-user allows 8 (one for a memory region). */
#define MESSAGE_DESCRIPTORS_MAX 8

static int bound_socket(int type, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0666) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 1) < 0)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

static napi_value bind_socket(napi_env env, napi_callback_info info, int type)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	napi_value argument[1];

	arguments(env, info, argument, 1);
	if (!to_text(env, argument[0], path, sizeof(path)))
		return from_int(env, -ENAMETOOLONG);
	return from_int(env, bound_socket(type, path));
}

/* listen(path): a listening stream socket anyone who reaches the path may connect to, or -errno. */
static napi_value listen_stream(napi_env env, napi_callback_info info)
{
	return bind_socket(env, info, SOCK_STREAM);
}

/* bindDatagram(path): a datagram socket anyone who reaches the path may send to, or -errno. */
static napi_value bind_datagram(napi_env env, napi_callback_info info)
{
	return bind_socket(env, info, SOCK_DGRAM);
}

/* socketPair(ends): two ends that keep messages apart (SOCK_SEQPACKET). ends[0] is ours and does not block. 0 or -errno. */
static napi_value socket_pair(napi_env env, napi_callback_info info)
{
	napi_value argument[1];
	size_t length = 0;
	int *ends;

	arguments(env, info, argument, 1);
	ends = to_array(env, argument[0], &length);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return from_result(env, -1);
	return from_result(env, fcntl(ends[0], F_SETFL, O_NONBLOCK));
}

/* accept(fd): the connection, or -errno. */
static napi_value accept_stream(napi_env env, napi_callback_info info)
{
	napi_value argument[1];

	arguments(env, info, argument, 1);
	return from_result(env, accept4(to_int(env, argument[0]), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static int take_descriptors(struct msghdr *message, int *descriptors)
{
	int count = 0;

	for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
		if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
			continue;
		int number = (int)((control->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		memcpy(descriptors + count, CMSG_DATA(control), (size_t)number * sizeof(int));
		count += number;
	}
	return count;
}

/*
 * receive(fd, bytes, descriptors): how many bytes, 0 at the end, or -errno. descriptors[0] is how many descriptors
 * came along, they follow (room for 9 numbers). A message with more of them is -EMSGSIZE and they are closed.
 */
static napi_value receive(napi_env env, napi_callback_info info)
{
	union {
		struct cmsghdr header; /* for its alignment */
		char bytes[CMSG_SPACE(MESSAGE_DESCRIPTORS_MAX * sizeof(int))];
	} control;
	struct iovec vector;
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
	};
	napi_value argument[3];
	size_t length;
	ssize_t received;
	int *descriptors;

	arguments(env, info, argument, 3);
	vector.iov_base = to_array(env, argument[1], &vector.iov_len);
	descriptors = to_array(env, argument[2], &length);
	descriptors[0] = 0;
	received = recvmsg(to_int(env, argument[0]), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (received < 0)
		return from_result(env, -1);
	descriptors[0] = take_descriptors(&message, descriptors + 1);
	if (message.msg_flags & MSG_CTRUNC) {
		while (descriptors[0] > 0)
			close(descriptors[descriptors[0]--]);
		return from_int(env, -EMSGSIZE);
	}
	return from_int(env, received);
}

/*
 * sendDatagram(fd, directory, path, bytes): sends to the socket at `path` below the directory (a descriptor). The
 * directory belongs to the guest's process, so no symbolic link in it is followed: the worst it can do is to have
 * the bytes for itself. 0 or -errno.
 */
static napi_value send_datagram(napi_env env, napi_callback_info info)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[sizeof(address.sun_path)];
	napi_value argument[4], result;
	struct stat status;
	size_t length;
	void *bytes;
	int target;

	arguments(env, info, argument, 4);
	if (!to_text(env, argument[2], path, sizeof(path)))
		return from_int(env, -ENAMETOOLONG);
	bytes = to_array(env, argument[3], &length);
	target = (int)syscall(SYS_openat2, to_int(env, argument[1]), path, &how, sizeof(how));
	if (target < 0)
		return from_result(env, -1);
	if (fstat(target, &status) < 0 || !S_ISSOCK(status.st_mode)) {
		close(target);
		return from_int(env, -ENOTSOCK);
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", target);
	result = from_result(env, sendto(to_int(env, argument[0]), bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL,
					 (struct sockaddr *)&address, sizeof(address)));
	close(target);
	return result;
}

void socket_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "listen", listen_stream);
	export_function(env, exports, "bindDatagram", bind_datagram);
	export_function(env, exports, "accept", accept_stream);
	export_function(env, exports, "socketPair", socket_pair);
	export_function(env, exports, "receive", receive);
	export_function(env, exports, "sendDatagram", send_datagram);
}
