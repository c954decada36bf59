/* A native Lambda function: README.md beside this file says how to build and deploy it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_BYTES_MAX = 8192 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int connect_to_api(const char *address) {
  char host[64];
  int port = 0;
  if (sscanf(address, "%63[^:]:%d", host, &port) != 2) fail("AWS_LAMBDA_RUNTIME_API");
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, host, &to.sin_addr) != 1) fail("inet_pton");
  int api = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int one = 1;
  if (api < 0 || connect(api, (struct sockaddr *)&to, sizeof to) != 0) fail("connect");
  setsockopt(api, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return api;
}

static void write_all(int to, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t written = write(to, bytes, count);
    if (written <= 0) fail("write");
    bytes += written;
    count -= (size_t)written;
  }
}

/* Copies a header's value into `out`; 0 when the head has no such header. */
static int header(const char *head, const char *name, char *out, size_t out_bytes) {
  for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n")) {
    size_t name_chars = strlen(name);
    if (strncasecmp(line + 2, name, name_chars) != 0 || line[2 + name_chars] != ':') continue;
    const char *value = line + 2 + name_chars + 1;
    while (*value == ' ') value++;
    size_t chars = strcspn(value, "\r");
    if (chars >= out_bytes) return 0;
    memcpy(out, value, chars);
    out[chars] = '\0';
    return 1;
  }
  return 0;
}

/* Reads one answer. Its body is allocated and ends with a NUL; `id` gets the request's id, if there is one. */
static char *read_answer(int from, char *id, size_t id_bytes, size_t *body_bytes) {
  static char head[HEAD_BYTES_MAX + 1];
  size_t have = 0;
  char *end = NULL;
  while (end == NULL) {
    ssize_t count = read(from, head + have, HEAD_BYTES_MAX - have);
    if (count <= 0) fail("read");
    have += (size_t)count;
    head[have] = '\0';
    end = strstr(head, "\r\n\r\n");
  }
  size_t head_bytes = (size_t)(end - head) + 4;
  char length[24] = "0";
  header(head, "Content-Length", length, sizeof length);
  if (!header(head, "Lambda-Runtime-Aws-Request-Id", id, id_bytes)) id[0] = '\0';
  *body_bytes = strtoul(length, NULL, 10);
  char *body = malloc(*body_bytes + 1);
  if (body == NULL) fail("malloc");
  size_t got = have - head_bytes;
  if (got > *body_bytes) got = *body_bytes;
  memcpy(body, head + head_bytes, got);
  while (got < *body_bytes) {
    ssize_t count = read(from, body + got, *body_bytes - got);
    if (count <= 0) fail("read");
    got += (size_t)count;
  }
  body[got] = '\0';
  return body;
}

/* The function itself: what comes back is freed by the caller. */
static char *handle(const char *event, size_t event_bytes, int calls) {
  size_t room = event_bytes + 128;
  char *answer = malloc(room);
  if (answer == NULL) fail("malloc");
  snprintf(answer, room, "{\"message\":\"Hello from C\",\"calls\":%d,\"event\":%s}", calls, event_bytes > 0 ? event : "null");
  return answer;
}

int main(void) {
  const char *address = getenv("AWS_LAMBDA_RUNTIME_API");
  if (address == NULL) {
    fprintf(stderr, "AWS_LAMBDA_RUNTIME_API is not set: this program runs as a Lambda function\n");
    return 1;
  }
  int api = connect_to_api(address);
  for (int calls = 1;; calls++) {
    char request[512];
    char id[128];
    int chars = snprintf(request, sizeof request, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n", address);
    write_all(api, request, (size_t)chars);
    size_t event_bytes = 0;
    char *event = read_answer(api, id, sizeof id, &event_bytes);
    char *answer = handle(event, event_bytes, calls);
    chars = snprintf(request, sizeof request,
                     "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n\r\n",
                     id, address, strlen(answer));
    write_all(api, request, (size_t)chars);
    write_all(api, answer, strlen(answer));
    free(read_answer(api, id, sizeof id, &event_bytes));
    free(event);
    free(answer);
  }
}
