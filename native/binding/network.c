/*
 * Networks of microVMs: namespaces with a tap in them, what is said to the kernel over netlink, and frames.
 *
 * A namespace is never given a name: a tap's descriptor keeps it alive, so all of it (tap, veth pair, rules) goes with
 * the descriptor, and thus with this process, however that ends.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef TUNSETIFINDEX
#define TUNSETIFINDEX _IOW('T', 218, unsigned int)
#endif

/* struct virtio_net_hdr_v1; NET_HEADER_BYTES in src/vmm/devices/net.ts. */
#define VIRTIO_HEADER_BYTES 12
/* The longest answer to one request: an error with the kernel's own words and a part of the request. */
#define REPLY_BYTES_MAX 8192
#define TEXT_BYTES_MAX 256

/* --- work on a thread of the pool ---------------------------------------------------------------------------- */

struct work {
	napi_async_work handle;
	napi_ref done;
	int failed_errno;
	int failed_at;		   /* a stage, or the number of a request, from 0 */
	char text[TEXT_BYTES_MAX]; /* the kernel's own words, or empty */
	/* makeSandboxNetwork */
	char tap_name[IFNAMSIZ];
	unsigned tap_index;
	int tap, route, filter;
	/* exchange */
	int socket;
	unsigned answers;
	size_t request_bytes;
	uint8_t request[];
};

static void work_queue(napi_env env, struct work *work, const char *label, napi_value done,
		       napi_async_execute_callback execute, napi_async_complete_callback complete)
{
	napi_value name;

	NAPI_OK(napi_create_reference(env, done, 1, &work->done));
	NAPI_OK(napi_create_string_utf8(env, label, NAPI_AUTO_LENGTH, &name));
	NAPI_OK(napi_create_async_work(env, NULL, name, execute, complete, work, &work->handle));
	NAPI_OK(napi_queue_async_work(env, work->handle));
}

static void work_answer(napi_env env, struct work *work, napi_value *result, size_t count)
{
	napi_value done, receiver, ignored;

	NAPI_OK(napi_get_reference_value(env, work->done, &done));
	NAPI_OK(napi_get_global(env, &receiver));
	NAPI_OK(napi_delete_reference(env, work->done));
	NAPI_OK(napi_delete_async_work(env, work->handle));
	free(work);
	NAPI_OK(napi_call_function(env, receiver, done, count, result, &ignored));
}

/* --- a namespace with a tap ------------------------------------------------------------------------------------ */

static int open_netlink(int protocol)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK };
	int one = 1, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -1;
	/* Answers with the kernel's own words, and without the whole request. */
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* Frames have a virtio header before them; they come without checksums, and may go so, and as TCP still to be cut. */
static int open_tap(const char *name, unsigned index)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header_bytes = VIRTIO_HEADER_BYTES;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -1;
	memcpy(request.ifr_name, name, IFNAMSIZ);
	/*
	 * Persistent, so that closing the descriptor does not itself take the tap down, which means to wait for RCU for
	 * tens of milliseconds: the end of the namespace does, in the kernel's own time and for many at once.
	 */
	if (ioctl(fd, TUNSETIFINDEX, &index) < 0 || ioctl(fd, TUNSETIFF, &request) < 0 ||
	    ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 || ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM) < 0 ||
	    ioctl(fd, TUNSETPERSIST, 1) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* On a thread of its own, which ends in the new namespace: none of the process's other threads is ever in it. */
static void *make_network(void *data)
{
	struct work *work = data;

	work->failed_at = 0;
	if (unshare(CLONE_NEWNET) < 0)
		goto failed;
	work->failed_at = 1;
	work->tap = open_tap(work->tap_name, work->tap_index);
	if (work->tap < 0)
		goto failed;
	work->failed_at = 2;
	work->route = open_netlink(NETLINK_ROUTE);
	work->filter = open_netlink(NETLINK_NETFILTER);
	if (work->route >= 0 && work->filter >= 0)
		return NULL;
failed:
	work->failed_errno = errno;
	return NULL;
}

static void make_network_execute(napi_env env, void *data)
{
	struct work *work = data;
	pthread_t thread;
	int error;

	(void)env;
	error = pthread_create(&thread, NULL, make_network, work);
	if (error)
		work->failed_errno = error;
	else
		pthread_join(thread, NULL);
	if (!work->failed_errno)
		return;
	if (work->tap >= 0)
		close(work->tap);
	if (work->route >= 0)
		close(work->route);
	if (work->filter >= 0)
		close(work->filter);
}

static void make_network_complete(napi_env env, napi_status status, void *data)
{
	struct work *work = data;
	int error = work->failed_errno;
	napi_value result[4];

	(void)status;
	result[0] = from_int(env, -error);
	result[1] = from_int(env, error ? work->failed_at : work->tap);
	result[2] = from_int(env, error ? -1 : work->route);
	result[3] = from_int(env, error ? -1 : work->filter);
	work_answer(env, work, result, 4);
}

/*
 * makeNetwork(tap's name, its index, done): 0, or -errno. Makes a network namespace with a tap in it. Then done(0, tap,
 * route, filter): the tap, which does not block, and sockets of NETLINK_ROUTE and NETLINK_NETFILTER in there. Or
 * done(-errno, stage, -1, -1); see NETWORK_STAGES in src/vmm/native.ts.
 */
static napi_value make_network_begin(napi_env env, napi_callback_info info)
{
	struct work *work = calloc(1, sizeof(*work));
	napi_value argument[3];

	if (!work)
		return from_int(env, -ENOMEM);
	arguments(env, info, argument, 3);
	if (!to_text(env, argument[0], work->tap_name, sizeof(work->tap_name))) {
		free(work);
		return from_int(env, -ENAMETOOLONG);
	}
	work->tap_index = (unsigned)to_int(env, argument[1]);
	work->tap = work->route = work->filter = -1;
	work_queue(env, work, "hearth:network", argument[2], make_network_execute, make_network_complete);
	return from_int(env, 0);
}

/* --- netlink --------------------------------------------------------------------------------------------------- */

/* openNetlink(protocol): a socket in our own namespace, or -errno. */
static napi_value open_netlink_here(napi_env env, napi_callback_info info)
{
	napi_value argument[1];

	arguments(env, info, argument, 1);
	return from_result(env, open_netlink(to_int(env, argument[0])));
}

/* The kernel's own words, an attribute behind the header of the request in question. */
static void read_text(struct work *work, const struct nlmsghdr *message, const struct nlmsgerr *answer)
{
	const uint8_t *at = (const uint8_t *)answer + NLMSG_ALIGN(sizeof(*answer));
	const uint8_t *end = (const uint8_t *)message + message->nlmsg_len;

	if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(message->nlmsg_flags & NLM_F_CAPPED))
		at += NLMSG_ALIGN(answer->msg.nlmsg_len) - sizeof(answer->msg);
	while (at + sizeof(struct nlattr) <= end) {
		const struct nlattr *attribute = (const struct nlattr *)at;

		if (attribute->nla_len < sizeof(*attribute) || at + attribute->nla_len > end)
			return;
		if ((attribute->nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG) {
			size_t length = attribute->nla_len - sizeof(*attribute);

			if (length >= sizeof(work->text))
				length = sizeof(work->text) - 1;
			memcpy(work->text, at + sizeof(*attribute), length);
		}
		at += NLA_ALIGN(attribute->nla_len);
	}
}

/* Reads answers. An error may come before the last answer or instead of it; the first one counts. */
static int read_answers(struct work *work)
{
	uint8_t reply[REPLY_BYTES_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));

	for (unsigned left = work->answers; left > 0;) {
		/* The kernel answers while it is being asked: whatever will come is there already. */
		ssize_t length = recv(work->socket, reply, sizeof(reply), MSG_DONTWAIT);

		if (length < 0)
			return work->failed_errno ? 0 : (errno == EAGAIN ? EPROTO : errno);
		for (struct nlmsghdr *message = (struct nlmsghdr *)reply; NLMSG_OK(message, length);
		     message = NLMSG_NEXT(message, length)) {
			const struct nlmsgerr *answer = NLMSG_DATA(message);

			if (message->nlmsg_type != NLMSG_ERROR || left == 0)
				continue;
			left--;
			if (answer->error == 0 || work->failed_errno)
				continue;
			work->failed_errno = -answer->error;
			work->failed_at = (int)answer->msg.nlmsg_seq;
			read_text(work, message, answer);
		}
	}
	return 0;
}

static void exchange_execute(napi_env env, void *data)
{
	struct work *work = data;
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	uint8_t ignored[64];
	int error = 0;

	(void)env;
	/* What an exchange that failed may have left. */
	while (recv(work->socket, ignored, sizeof(ignored), MSG_DONTWAIT | MSG_TRUNC) > 0)
		continue;
	if (sendto(work->socket, work->request, work->request_bytes, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		error = errno;
	else
		error = read_answers(work);
	if (error) {
		work->failed_errno = error;
		work->failed_at = -1;
	}
}

static void exchange_complete(napi_env env, napi_status status, void *data)
{
	struct work *work = data;
	napi_value result[3];

	(void)status;
	result[0] = from_int(env, -work->failed_errno);
	result[1] = from_int(env, work->failed_at);
	NAPI_OK(napi_create_string_utf8(env, work->text, NAPI_AUTO_LENGTH, &result[2]));
	work_answer(env, work, result, 3);
}

/*
 * exchange(socket, request, answers, done): 0, or -errno. Sends netlink messages and takes as many acknowledgements.
 * Then done(0, …) or done(-errno, sequence number of the message that failed or -1, the kernel's words or ""). The
 * socket must stay open until then, and takes one exchange at a time.
 */
static napi_value exchange(napi_env env, napi_callback_info info)
{
	napi_value argument[4];
	struct work *work;
	size_t length = 0;
	void *bytes;

	arguments(env, info, argument, 4);
	bytes = to_array(env, argument[1], &length);
	work = calloc(1, sizeof(*work) + length);
	if (!work)
		return from_int(env, -ENOMEM);
	memcpy(work->request, bytes, length);
	work->request_bytes = length;
	work->socket = to_int(env, argument[0]);
	work->answers = (unsigned)to_int(env, argument[2]);
	work_queue(env, work, "hearth:netlink", argument[3], exchange_execute, exchange_complete);
	return from_int(env, 0);
}

/* --- frames ---------------------------------------------------------------------------------------------------- */

/*
 * readFrames(tap, bytes, lengths, count): up to `count` frames, as far as there are. Frame i begins at i times the
 * share of `bytes` that each of `lengths` has; lengths[i] says how long it is. How many, or -errno.
 */
static napi_value read_frames(napi_env env, napi_callback_info info)
{
	size_t size = 0, room = 0, count, read_count = 0;
	napi_value argument[4];
	uint8_t *bytes;
	int *lengths, fd;

	arguments(env, info, argument, 4);
	fd = to_int(env, argument[0]);
	bytes = to_array(env, argument[1], &size);
	lengths = to_array(env, argument[2], &room);
	count = (size_t)to_int(env, argument[3]);
	size /= room;
	for (; read_count < count; read_count++) {
		ssize_t length = read(fd, bytes + read_count * size, size);

		if (length < 0 && errno != EAGAIN && read_count == 0)
			return from_result(env, -1);
		if (length < 0)
			break;
		lengths[read_count] = (int)length;
	}
	return from_int(env, (int64_t)read_count);
}

/* writeFrames(tap, bytes, lengths, count): hands frames laid out as above to the kernel, which may refuse any of them. How many it took. */
static napi_value write_frames(napi_env env, napi_callback_info info)
{
	size_t size = 0, room = 0, count, taken = 0;
	napi_value argument[4];
	uint8_t *bytes;
	int *lengths, fd;

	arguments(env, info, argument, 4);
	fd = to_int(env, argument[0]);
	bytes = to_array(env, argument[1], &size);
	lengths = to_array(env, argument[2], &room);
	count = (size_t)to_int(env, argument[3]);
	size /= room;
	for (size_t i = 0; i < count; i++)
		taken += write(fd, bytes + i * size, (size_t)lengths[i]) >= 0;
	return from_int(env, (int64_t)taken);
}

void network_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "makeNetwork", make_network_begin);
	export_function(env, exports, "openNetlink", open_netlink_here);
	export_function(env, exports, "exchange", exchange);
	export_function(env, exports, "readFrames", read_frames);
	export_function(env, exports, "writeFrames", write_frames);
}
