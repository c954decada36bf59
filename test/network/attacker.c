/*
 * A guest's PID 1 with all rights there, for the tests of the network. Gives eth0 the address and gateway of its
 * arguments, connects to the host's vsock port 1024, says "up", then obeys commands, one a line, each with one line for
 * an answer:
 *
 *   knock ADDRESS:PORT …           to each a TCP connection and a UDP packet, all at once; says which answered at all,
 *                                  as ADDRESS:PORT=connected or =refused, or "silence"
 *   udp ADDRESS PORT TEXT          what came back, or "silence"
 *   spoof SOURCE ADDRESS PORT TEXT sends a UDP packet with a source address of its own making
 *   ping ADDRESS                   "answered" or "silence", with a raw socket
 *   readdress ADDRESS              takes another address for eth0, with the same gateway
 *   frame HEX                      sends an Ethernet frame as it is
 *   flood ADDRESS PORT SECONDS     sends UDP packets as fast as it can, says how many
 *   send ADDRESS PORT BYTES        sends so much over TCP, says for how many µs
 *   take ADDRESS PORT BYTES        receives so much over TCP, says for how many µs
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/vm_sockets.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 400
#define KNOCKS_MAX 128

static char buffer[64 * 1024];
static const char *gateway;

static void must(int result, const char *what)
{
	if (result < 0) {
		printf("%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static struct sockaddr_in inet(const char *address, int port)
{
	struct sockaddr_in inet = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	inet_pton(AF_INET, address, &inet.sin_addr);
	return inet;
}

static void set_address(const char *address)
{
	struct ifreq request = { .ifr_name = "eth0" };
	struct sockaddr_in value = inet(address, 0);
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = request.ifr_name };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	memcpy(&request.ifr_addr, &value, sizeof(value));
	must(ioctl(fd, SIOCSIFADDR, &request), "address");
	value = inet("255.255.255.252", 0);
	memcpy(&request.ifr_netmask, &value, sizeof(value));
	must(ioctl(fd, SIOCSIFNETMASK, &request), "netmask");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	must(ioctl(fd, SIOCSIFFLAGS, &request), "up");
	/* On-link whatever the address: a route to the gateway, then one by it. */
	value = inet(gateway, 0);
	memcpy(&route.rt_dst, &value, sizeof(value));
	value = inet("255.255.255.255", 0);
	memcpy(&route.rt_genmask, &value, sizeof(value));
	route.rt_flags = RTF_UP | RTF_HOST;
	ioctl(fd, SIOCADDRT, &route);
	memset(&route.rt_genmask, 0, sizeof(route.rt_genmask));
	memcpy(&route.rt_gateway, &route.rt_dst, sizeof(route.rt_dst));
	value = inet("0.0.0.0", 0);
	memcpy(&route.rt_dst, &value, sizeof(value));
	memcpy(&route.rt_genmask, &value, sizeof(value));
	route.rt_flags = RTF_UP | RTF_GATEWAY;
	must(ioctl(fd, SIOCADDRT, &route), "route");
	close(fd);
}

static int connect_tcp(const char *address, int port)
{
	struct sockaddr_in peer = inet(address, port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	socklen_t length = sizeof(error);

	if (connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0 && errno != EINPROGRESS)
		error = errno;
	else if (poll(&wait, 1, WAIT_MS) == 0)
		error = ETIMEDOUT;
	else
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error) {
		close(fd);
		errno = error;
		return -1;
	}
	fcntl(fd, F_SETFL, 0);
	return fd;
}

static long long now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (long long)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void knock(FILE *out, char *targets)
{
	struct pollfd doors[KNOCKS_MAX];
	const char *names[KNOCKS_MAX];
	int count = 0, answered = 0, udp = socket(AF_INET, SOCK_DGRAM, 0);
	long long until = now_us() + WAIT_MS * 1000;

	for (char *name = strtok(targets, " \n"); name && count < KNOCKS_MAX; name = strtok(NULL, " \n")) {
		char *colon = strchr(name, ':');
		struct sockaddr_in peer;
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		*colon = 0;
		peer = inet(name, atoi(colon + 1));
		*colon = ':';
		sendto(udp, "knock", 5, 0, (struct sockaddr *)&peer, sizeof(peer));
		connect(fd, (struct sockaddr *)&peer, sizeof(peer));
		names[count] = name;
		doors[count++] = (struct pollfd){ .fd = fd, .events = POLLOUT };
	}
	for (long long left = until - now_us(); left > 0; left = until - now_us()) {
		poll(doors, (nfds_t)count, (int)(left / 1000) + 1);
		for (int i = 0; i < count; i++) {
			int error = 0;
			socklen_t length = sizeof(error);

			if (doors[i].fd < 0 || !doors[i].revents)
				continue;
			getsockopt(doors[i].fd, SOL_SOCKET, SO_ERROR, &error, &length);
			if (error == 0 || error == ECONNREFUSED)
				fprintf(out, "%s%s=%s", answered++ ? " " : "", names[i], error ? "refused" : "connected");
			close(doors[i].fd);
			doors[i].fd = -1;
		}
	}
	fprintf(out, "%s\n", answered ? "" : "silence");
	for (int i = 0; i < count; i++)
		if (doors[i].fd >= 0)
			close(doors[i].fd);
	close(udp);
}

static void udp(FILE *out, const char *address, int port, const char *text)
{
	struct sockaddr_in peer = inet(address, port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	ssize_t length;

	sendto(fd, text, strlen(text), 0, (struct sockaddr *)&peer, sizeof(peer));
	if (poll(&wait, 1, WAIT_MS) > 0 && (length = recv(fd, buffer, sizeof(buffer), 0)) >= 0)
		fprintf(out, "%.*s\n", (int)length, buffer);
	else
		fprintf(out, "silence\n");
	close(fd);
}

static void spoof(FILE *out, const char *source, const char *address, int port, const char *text)
{
	struct sockaddr_in peer = inet(address, port);
	struct {
		struct iphdr ip;
		struct udphdr udp;
		char text[64];
	} __attribute__((packed)) packet = { 0 };
	size_t length = strlen(text);
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);

	packet.ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
				    .tot_len = htons((uint16_t)(28 + length)) };
	packet.ip.saddr = inet(source, 0).sin_addr.s_addr;
	packet.ip.daddr = peer.sin_addr.s_addr;
	packet.udp = (struct udphdr){ .source = htons(4000), .dest = htons((uint16_t)port),
				      .len = htons((uint16_t)(8 + length)) };
	memcpy(packet.text, text, length);
	ssize_t sent = sendto(fd, &packet, 28 + length, 0, (struct sockaddr *)&peer, sizeof(peer));
	fprintf(out, "%s\n", sent < 0 ? strerror(errno) : "sent");
	close(fd);
}

static uint16_t checksum(const void *bytes, size_t length)
{
	const uint16_t *words = bytes;
	uint32_t sum = 0;

	for (size_t i = 0; i < length / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void ping(FILE *out, const char *address)
{
	struct sockaddr_in peer = inet(address, 0);
	struct icmphdr request = { .type = ICMP_ECHO, .un.echo = { .id = 77, .sequence = 1 } };
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	request.checksum = checksum(&request, sizeof(request));
	sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&peer, sizeof(peer));
	while (poll(&wait, 1, WAIT_MS) > 0) {
		ssize_t length = recv(fd, buffer, sizeof(buffer), 0);
		const struct iphdr *ip = (const struct iphdr *)buffer;
		const struct icmphdr *reply = (const struct icmphdr *)(buffer + ip->ihl * 4);

		if (length >= 28 && reply->type == ICMP_ECHOREPLY && reply->un.echo.id == 77) {
			fprintf(out, "answered\n");
			close(fd);
			return;
		}
	}
	fprintf(out, "silence\n");
	close(fd);
}

static void frame(FILE *out, const char *hex)
{
	struct sockaddr_ll link = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("eth0") };
	size_t length = strlen(hex) / 2;
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));

	for (size_t i = 0; i < length; i++) {
		char digits[3] = { hex[2 * i], hex[2 * i + 1], 0 };

		buffer[i] = (char)strtoul(digits, NULL, 16);
	}
	ssize_t sent = sendto(fd, buffer, length, 0, (struct sockaddr *)&link, sizeof(link));
	fprintf(out, "%s\n", sent < 0 ? strerror(errno) : "sent");
	close(fd);
}

static void flood(FILE *out, const char *address, int port, int seconds)
{
	struct sockaddr_in peer = inet(address, port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	long long until = now_us() + seconds * 1000000LL, count = 0;

	for (; now_us() < until; count++)
		sendto(fd, buffer, 64, 0, (struct sockaddr *)&peer, sizeof(peer));
	fprintf(out, "%lld\n", count);
	close(fd);
}

static void transfer(FILE *out, const char *address, int port, long bytes, int sends)
{
	int fd = connect_tcp(address, port);
	long long start = now_us();

	if (fd < 0) {
		fprintf(out, "%s\n", strerror(errno));
		return;
	}
	while (bytes > 0) {
		size_t part = bytes < (long)sizeof(buffer) ? (size_t)bytes : sizeof(buffer);
		ssize_t moved = sends ? write(fd, buffer, part) : read(fd, buffer, part);

		if (moved <= 0)
			break;
		bytes -= moved;
	}
	/* Sent is what the other end has: it closes when it has seen our end. */
	if (sends) {
		shutdown(fd, SHUT_WR);
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
	}
	fprintf(out, "%lld\n", now_us() - start);
	close(fd);
}

static void obey(FILE *out, char *line)
{
	char *word[6] = { 0 };
	int count = 0;

	if (!strncmp(line, "knock ", 6)) {
		knock(out, line + 6);
		fflush(out);
		return;
	}
	for (char *next = strtok(line, " \n"); next && count < 6; next = strtok(NULL, " \n"))
		word[count++] = next;
	if (count == 4 && !strcmp(word[0], "udp"))
		udp(out, word[1], atoi(word[2]), word[3]);
	else if (count == 5 && !strcmp(word[0], "spoof"))
		spoof(out, word[1], word[2], atoi(word[3]), word[4]);
	else if (count == 2 && !strcmp(word[0], "ping"))
		ping(out, word[1]);
	else if (count == 2 && !strcmp(word[0], "frame"))
		frame(out, word[1]);
	else if (count == 4 && !strcmp(word[0], "flood"))
		flood(out, word[1], atoi(word[2]), atoi(word[3]));
	else if (count == 4 && !strcmp(word[0], "send"))
		transfer(out, word[1], atoi(word[2]), atol(word[3]), 1);
	else if (count == 4 && !strcmp(word[0], "take"))
		transfer(out, word[1], atoi(word[2]), atol(word[3]), 0);
	else if (count == 2 && !strcmp(word[0], "readdress")) {
		set_address(word[1]);
		fprintf(out, "done\n");
	} else
		fprintf(out, "what?\n");
	fflush(out);
}

int main(int argc, char **argv)
{
	struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1024 };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	char line[4096];
	FILE *in, *out;

	must(argc < 3 ? -1 : 0, "an address and a gateway");
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	gateway = argv[2];
	set_address(argv[1]);
	must(connect(fd, (struct sockaddr *)&host, sizeof(host)), "vsock");
	in = fdopen(fd, "r");
	out = fdopen(dup(fd), "w");
	fprintf(out, "up\n");
	fflush(out);
	while (fgets(line, sizeof(line), in))
		obey(out, line);
	pause();
}
