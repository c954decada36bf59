/*
 * The other end of a vhost-user socket, as a guest's process that was taken over might play it.
 *
 *     hostile-peer SOCKET WHAT
 *
 * sends a memory table with a descriptor of the kind WHAT, or another message that cannot be, and waits for the end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MIB (1024 * 1024)

static void send_message(int fd, const void *bytes, size_t length, const int *descriptors, size_t count)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} control;
	struct iovec vector = { (void *)bytes, length };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	if (count > 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof(int));
	}
	sendmsg(fd, &message, MSG_NOSIGNAL);
}

static void send_memory(int fd, int memory, uint64_t size, uint32_t regions, size_t descriptors)
{
	int all[64];
	struct __attribute__((packed)) {
		uint32_t request, flags, bytes, count, padding;
		uint64_t start, size, user, offset;
	} message = { 5, 1, 40, regions, 0, 0, size, 0, 0 };

	for (size_t i = 0; i < descriptors; i++)
		all[i] = memory;
	send_message(fd, &message, sizeof(message), all, descriptors);
}

static int memfd(off_t size, unsigned seals)
{
	int fd = memfd_create("hostile", MFD_ALLOW_SEALING);

	if (ftruncate(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0)
		perror("memfd");
	return fd;
}

static void send_kind(int fd, const char *what)
{
	if (!strcmp(what, "unsealed"))
		send_memory(fd, memfd(MIB, 0), MIB, 1, 1);
	else if (!strcmp(what, "short"))
		send_memory(fd, memfd(MIB, F_SEAL_SHRINK), 2 * MIB, 1, 1);
	else if (!strcmp(what, "file"))
		send_memory(fd, open("/proc/self/exe", O_RDONLY), 4096, 1, 1);
	else if (!strcmp(what, "eventfd"))
		send_memory(fd, eventfd(0, 0), 4096, 1, 1);
	else if (!strcmp(what, "huge"))
		send_memory(fd, memfd(MIB, F_SEAL_SHRINK), UINT64_MAX - 4095, 1, 1);
	else if (!strcmp(what, "too-much"))
		send_memory(fd, memfd(16 * MIB, F_SEAL_SHRINK), 16 * MIB, 1, 1);
	else if (!strcmp(what, "uneven"))
		send_memory(fd, memfd(MIB, F_SEAL_SHRINK), 4095, 1, 1);
	else if (!strcmp(what, "no-descriptor"))
		send_memory(fd, -1, MIB, 1, 0);
	else if (!strcmp(what, "many-descriptors"))
		send_memory(fd, memfd(MIB, F_SEAL_SHRINK), MIB, 1, 20);
	else if (!strcmp(what, "many-regions"))
		send_memory(fd, memfd(MIB, F_SEAL_SHRINK), MIB, 8, 8);
	else if (!strcmp(what, "twice"))
		for (int i = 0; i < 2; i++)
			send_memory(fd, memfd(MIB, F_SEAL_SHRINK), MIB, 1, 1);
	else if (!strcmp(what, "long-message"))
		send_message(fd, &(uint32_t[]){ 1, 1, 0xffffffff }, 12, NULL, 0);
	else if (!strcmp(what, "unknown-request"))
		send_message(fd, &(uint32_t[]){ 77, 1, 0 }, 12, NULL, 0);
	else if (!strcmp(what, "wrong-version"))
		send_message(fd, &(uint32_t[]){ 1, 2, 0 }, 12, NULL, 0);
	else if (!strcmp(what, "enable-early"))
		for (uint32_t i = 0; i < 3; i++)
			send_message(fd, &(uint32_t[]){ 18, 1, 8, i, 1 }, 20, NULL, 0);
	else if (!strcmp(what, "ring-out-of-range"))
		send_message(fd, &(uint32_t[]){ 8, 1, 8, 255, 256 }, 20, NULL, 0);
	else if (!strcmp(what, "config-beyond"))
		send_message(fd, &(uint32_t[]){ 24, 1, 12 + 8, 4, 8, 0, 0, 0 }, 32, NULL, 0);
	else if (!strcmp(what, "truncated"))
		send_message(fd, &(uint32_t[]){ 2, 1, 4, 0 }, 16, NULL, 0);
	else if (!strcmp(what, "endless"))
		/* Faster than anybody reads them, until nobody does. */
		for (uint32_t owner[4096 * 3], i = 0; i < 100000; i++) {
			for (size_t at = 0; at < 4096 * 3; at += 3) {
				owner[at] = 3;
				owner[at + 1] = 1;
				owner[at + 2] = 0;
			}
			if (send(fd, owner, sizeof(owner), MSG_NOSIGNAL) < 0)
				break;
		}
	else if (!strcmp(what, "gone"))
		close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char byte;

	if (argc < 3)
		return 2;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 1;
	send_kind(fd, argv[2]);
	while (read(fd, &byte, 1) > 0)
		;
	return 0;
}
