#include "netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for several acknowledgements at once: each has its header, an error, and the header of its message. */
#define REPLY_BYTES_MAX 8192

int netlink_open(int protocol)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK };
	int one = 1, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -1;
	/* Acknowledgements without the whole message. */
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

int netlink_ask(int fd, const struct netlink_request *request, int *failed_at)
{
	uint8_t reply[REPLY_BYTES_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int failed = 0;

	*failed_at = -1;
	/* What a request that failed may have left. */
	while (recv(fd, reply, sizeof(reply), MSG_DONTWAIT) > 0)
		continue;
	if (sendto(fd, request->messages, request->bytes, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return errno;
	/* An error may come before the last acknowledgement or instead of it; the first one counts. */
	for (unsigned left = request->answers; left > 0;) {
		/* The kernel answers while it is being asked: whatever will come is there already. */
		ssize_t length = recv(fd, reply, sizeof(reply), MSG_DONTWAIT);

		if (length < 0)
			return failed ? failed : errno == EAGAIN ? EPROTO : errno;
		for (struct nlmsghdr *message = (struct nlmsghdr *)reply; left > 0 && NLMSG_OK(message, length);
		     message = NLMSG_NEXT(message, length)) {
			const struct nlmsgerr *answer = NLMSG_DATA(message);

			if (message->nlmsg_type != NLMSG_ERROR)
				continue;
			left--;
			if (answer->error == 0 || failed)
				continue;
			failed = -answer->error;
			*failed_at = (int)answer->msg.nlmsg_seq;
		}
	}
	return failed;
}

int netlink_ask_once(int protocol, const struct netlink_request *request, int *failed_at)
{
	int error, fd = netlink_open(protocol);

	*failed_at = -1;
	if (fd < 0)
		return errno;
	error = netlink_ask(fd, request, failed_at);
	close(fd);
	return error;
}
