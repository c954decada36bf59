/*
 * The function of the crash campaign, as `bootstrap`: says on its log that it runs an event, works for as long as the
 * event says ("ms":N), and answers with what it read of its own code, the file `mark`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int api;
static char text[65536];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void tell(const char *bytes)
{
	for (size_t left = strlen(bytes); left > 0;) {
		ssize_t count = write(api, bytes, left);

		if (count <= 0)
			fail("write");
		bytes += count;
		left -= (size_t)count;
	}
}

/* One answer of the Runtime API, whole in `text`; its body. */
static char *hear(void)
{
	size_t have = 0;

	for (;;) {
		ssize_t count = read(api, text + have, sizeof(text) - 1 - have);
		char *end, *length;

		if (count <= 0)
			fail("read");
		have += (size_t)count;
		text[have] = 0;
		end = strstr(text, "\r\n\r\n");
		length = strcasestr(text, "Content-Length:");
		if (end && have >= (size_t)(end + 4 - text) + (length ? strtoul(length + 15, NULL, 10) : 0))
			return end + 4;
	}
}

int main(void)
{
	const char *address = getenv("AWS_LAMBDA_RUNTIME_API");
	struct sockaddr_in to = { .sin_family = AF_INET };
	char host[64], mark[256] = "", id[128], request[1024];
	FILE *file = fopen("/var/task/mark", "r");
	int port = 0;

	if (!file || !fgets(mark, sizeof(mark), file) || !address || sscanf(address, "%63[^:]:%d", host, &port) != 2)
		fail("start");
	to.sin_port = htons((uint16_t)port);
	inet_pton(AF_INET, host, &to.sin_addr);
	api = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (api < 0 || connect(api, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("connect");
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		const char *event, *ms, *name;

		snprintf(request, sizeof(request), "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n", address);
		tell(request);
		event = hear();
		name = strcasestr(text, "Lambda-Runtime-Aws-Request-Id:");
		if (!name || sscanf(name + 30, " %127[^\r]", id) != 1)
			fail("id");
		printf("run %s\n", event);
		ms = strstr(event, "\"ms\":");
		usleep(ms ? (useconds_t)atoi(ms + 5) * 1000 : 0);
		snprintf(request, sizeof(request),
			 "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n\r\n\"%s\"", id,
			 address, strlen(mark) + 2, mark);
		tell(request);
		hear();
	}
}
