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
#include <unistd.h>

#include "netlink.h"

#ifndef TUNSETIFINDEX
#define TUNSETIFINDEX _IOW('T', 218, unsigned int)
#endif

/* struct virtio_net_hdr_v1; NET_HEADER_BYTES in src/vmm/devices/frame-header.ts. */
#define VIRTIO_HEADER_BYTES 12

static struct netlink_request to_request(napi_env env, napi_value messages, napi_value answers)
{
	struct netlink_request request = { .answers = (unsigned)to_int(env, answers) };

	request.messages = to_array(env, messages, &request.bytes);
	return request;
}

/* openNetlink(protocol): a socket in our own namespace, or -errno. */
static napi_value open_netlink(napi_env env, napi_callback_info info)
{
	napi_value argument[1];

	arguments(env, info, argument, 1);
	return from_result(env, netlink_open(to_int(env, argument[0])));
}

/*
 * askNetlink(socket, messages, answers, failedAt): 0 when all was done, or -errno, with the sequence number of the
 * message that failed, or -1, in failedAt[0].
 */
static napi_value ask_netlink(napi_env env, napi_callback_info info)
{
	struct netlink_request request;
	napi_value argument[4];
	size_t length;

	arguments(env, info, argument, 4);
	request = to_request(env, argument[1], argument[2]);
	return from_int(env, -netlink_ask(to_int(env, argument[0]), &request, to_array(env, argument[3], &length)));
}

/* --- a namespace with a tap ------------------------------------------------------------------------------------ */

/* NETWORK_STAGES in src/vmm/native.ts. */
enum stage { STAGE_NAMESPACE, STAGE_TAP, STAGE_RULES, STAGE_LINKS, STAGE_HOST };

struct network {
	char tap_name[IFNAMSIZ];
	unsigned tap_index;
	struct netlink_request rules, links, host_links;
	int tap;
	enum stage stage;
	int failed_errno;
	int failed_at;
	napi_async_work work;
	napi_ref done;
	uint8_t messages[]; /* those of the three requests */
};

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

/* The error number, 0 when all is made. The rules come first: there is no moment at which a link is up without them. */
static int make_stages(struct network *network, int host)
{
	int error;

	network->failed_at = -1;
	network->stage = STAGE_NAMESPACE;
	if (host < 0 || unshare(CLONE_NEWNET) < 0)
		return errno;
	network->stage = STAGE_TAP;
	network->tap = open_tap(network->tap_name, network->tap_index);
	if (network->tap < 0)
		return errno;
	network->stage = STAGE_RULES;
	error = netlink_ask_once(NETLINK_NETFILTER, &network->rules, &network->failed_at);
	if (error)
		return error;
	network->stage = STAGE_LINKS;
	error = netlink_ask_once(NETLINK_ROUTE, &network->links, &network->failed_at);
	if (error || network->host_links.bytes == 0)
		return error;
	network->stage = STAGE_HOST;
	return netlink_ask(host, &network->host_links, &network->failed_at);
}

/* On a thread of its own, which ends in the new namespace: none of the process's other threads is ever in it. */
static void *make_on_thread(void *data)
{
	struct network *network = data;
	int host = netlink_open(NETLINK_ROUTE);

	network->failed_errno = make_stages(network, host);
	if (network->failed_errno && network->tap >= 0)
		close(network->tap);
	close(host);
	return NULL;
}

static void make_execute(napi_env env, void *data)
{
	struct network *network = data;
	pthread_t thread;
	int error;

	(void)env;
	error = pthread_create(&thread, NULL, make_on_thread, network);
	if (error)
		network->failed_errno = error;
	else
		pthread_join(thread, NULL);
}

static void make_complete(napi_env env, napi_status status, void *data)
{
	struct network *network = data;
	napi_value done, receiver, ignored, result[3];

	(void)status;
	result[0] = from_int(env, -network->failed_errno);
	result[1] = from_int(env, network->failed_errno ? (int)network->stage : network->tap);
	result[2] = from_int(env, network->failed_at);
	NAPI_OK(napi_get_reference_value(env, network->done, &done));
	NAPI_OK(napi_get_global(env, &receiver));
	NAPI_OK(napi_delete_reference(env, network->done));
	NAPI_OK(napi_delete_async_work(env, network->work));
	free(network);
	NAPI_OK(napi_call_function(env, receiver, done, 3, result, &ignored));
}

static uint8_t *keep_messages(struct netlink_request *request, uint8_t *room)
{
	memcpy(room, request->messages, request->bytes);
	request->messages = room;
	return room + request->bytes;
}

/*
 * makeNetwork(tap's name, its index, rules, answers, links, answers, host's links, answers, done): 0, or -errno. Makes
 * a network namespace with a tap in it, sends messages there to NETLINK_NETFILTER and to NETLINK_ROUTE, and (if any)
 * to the latter in our own. Then done(0, tap, -1), the tap not blocking, or done(-errno, stage, sequence number of the
 * message that failed or -1), with nothing left.
 */
static napi_value make_network(napi_env env, napi_callback_info info)
{
	struct netlink_request requests[3];
	napi_value argument[9], name;
	struct network *network;
	uint8_t *room;

	arguments(env, info, argument, 9);
	for (size_t i = 0; i < 3; i++)
		requests[i] = to_request(env, argument[2 + 2 * i], argument[3 + 2 * i]);
	network = calloc(1, sizeof(*network) + requests[0].bytes + requests[1].bytes + requests[2].bytes);
	if (!network)
		return from_int(env, -ENOMEM);
	room = network->messages;
	for (size_t i = 0; i < 3; i++)
		room = keep_messages(&requests[i], room);
	network->rules = requests[0];
	network->links = requests[1];
	network->host_links = requests[2];
	network->tap = -1;
	network->tap_index = (unsigned)to_int(env, argument[1]);
	if (!to_text(env, argument[0], network->tap_name, sizeof(network->tap_name))) {
		free(network);
		return from_int(env, -ENAMETOOLONG);
	}
	NAPI_OK(napi_create_reference(env, argument[8], 1, &network->done));
	NAPI_OK(napi_create_string_utf8(env, "hearth:network", NAPI_AUTO_LENGTH, &name));
	NAPI_OK(napi_create_async_work(env, NULL, name, make_execute, make_complete, network, &network->work));
	NAPI_OK(napi_queue_async_work(env, network->work));
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
	export_function(env, exports, "openNetlink", open_netlink);
	export_function(env, exports, "askNetlink", ask_netlink);
	export_function(env, exports, "makeNetwork", make_network);
	export_function(env, exports, "readFrames", read_frames);
	export_function(env, exports, "writeFrames", write_frames);
}
