/* Netlink: messages to the kernel, and whether it did what they say. Nothing of Node here. */
#ifndef HEARTH_NETLINK_H
#define HEARTH_NETLINK_H

#include <stddef.h>
#include <stdint.h>

/* What is asked in one go. */
struct netlink_request {
	const uint8_t *messages;
	size_t bytes;
	unsigned answers; /* acknowledgements that they ask for */
};

/* A socket in the calling thread's network namespace, or -1 with errno. */
int netlink_open(int protocol);

/*
 * Asks, one at a time on a socket. 0 when all was done, else the error number; *failed_at is then the sequence number
 * of the message that failed, or -1 for none in particular.
 */
int netlink_ask(int fd, const struct netlink_request *request, int *failed_at);

/* The same through a socket of its own. */
int netlink_ask_once(int protocol, const struct netlink_request *request, int *failed_at);

#endif
