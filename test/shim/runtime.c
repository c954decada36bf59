/*
 * A runtime for the tests of the shim, and what a hostile one might do. The event says what to do, as words:
 *
 *   echo TEXT            answers TEXT                  size N          answers N bytes
 *   stream N SIZE        N chunks of SIZE, streamed    cut             half an answer, then the connection closes
 *   error TYPE           an error report               fail-trailer    streams, then fails in its trailers
 *   exit N | signal N | abort                          sleep           never answers
 *   answered-exit        answers, then exits           answered-sleep  answers, never asks again
 *   memory BYTES N       touches so much; with N, so do as many children, all at once
 *   fork                 forks without end
 *   log N                writes N lines, then answers  flood           writes without end, `flood 1` fast
 *   who                  answers with what it sees of the machine      file-write / file-read: /tmp/kept
 *   cat PATH             answers with a file           fill MIB        writes so much to /tmp/fill, and answers how much it
 *                                                      wrote and the errors of write, fsync and a read of it all
 *   hold N KIB           writes N files to /tmp            drop            deletes them
 *   churn N              N rounds of files written, half of them deleted, all others read back: "intact" or what was not
 *   env NAME             answers with a variable
 *   pid                  answers its process's id      ask             asks again which function it is
 *   tick N               says its deadline, then the time, again and again, while N children spin
 *   wrong-id | twice     breaks the Runtime API's rules, and answers with the statuses it got
 *   connections N        opens so many more, and answers how many stayed open
 * As a program named extension-… it is an extension: prints its events; `extension-crash` exits at its first,
 * `extension-silent` never registers.
 * API_PORT in the environment says that this is no guest but a host: then what could harm it is refused.
 * HEARTH_PREPARED in the environment: asks which function it is first. As "exit" it exits before, as "exit-later" when told.
 * INIT in the environment breaks the init: error | exit | sleep | once (error the first time, by a file in /tmp).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define API "/2018-06-01/runtime/"

static char in[8 << 20];
static size_t in_length;
static char id[128];
static int fd = -1;
static pid_t own_pid;

static int dial(void) {
    const char *port = getenv("API_PORT");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port != NULL ? atoi(port) : 9001)};
    inet_pton(AF_INET, getenv("API_ADDRESS") != NULL ? getenv("API_ADDRESS") : "127.0.0.1", &address.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&address, sizeof address) < 0) exit(90);
    return s;
}

static void put(int s, const void *bytes, size_t length) {
    for (size_t at = 0; at < length;) {
        ssize_t n = write(s, (const char *)bytes + at, length - at);
        if (n <= 0) exit(91);
        at += (size_t)n;
    }
}

/* Reads one answer; returns its status, `*body` its body. */
static int answer(int s, char **body, size_t *body_length) {
    in_length = 0;
    for (;;) {
        ssize_t n = read(s, in + in_length, sizeof in - in_length - 1);
        if (n <= 0) return -1;
        in_length += (size_t)n;
        in[in_length] = 0;
        char *end = strstr(in, "\r\n\r\n");
        if (end == NULL) continue;
        char *length = strcasestr(in, "content-length:");
        size_t expected = length == NULL ? 0 : strtoul(length + 15, NULL, 10);
        if ((size_t)(in + in_length - (end + 4)) < expected) continue;
        *body = end + 4;
        *body_length = expected;
        return atoi(in + 9);
    }
}

static int request(const char *method, const char *path, const char *headers, const void *body, size_t length) {
    char head[1024];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", method, path,
                     headers, length);
    char *reply;
    size_t reply_length;
    put(fd, head, (size_t)n);
    put(fd, body, length);
    return answer(fd, &reply, &reply_length);
}

static int respond_as(const char *as, const void *body, size_t length) {
    char path[256];
    snprintf(path, sizeof path, API "invocation/%s/response", as);
    return request("POST", path, "Content-Type: application/json\r\n", body, length);
}

static int respond(const char *format, ...) {
    char text[16384];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return respond_as(id, text, (size_t)n);
}

static void begin_stream(void) {
    char head[512];
    int n = snprintf(head, sizeof head,
                     "POST " API "invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
                     "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
                     "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n", id);
    put(fd, head, (size_t)n);
}

static void stream(unsigned long count, size_t size, const char *trailers) {
    char *chunk = malloc(size + 64);
    begin_stream();
    for (unsigned long i = 0; i < count; i++) {
        int n = sprintf(chunk, "%zx\r\n", size);
        memset(chunk + n, 'a' + (int)(i % 26), size);
        memcpy(chunk + n + size, "\r\n", 2);
        put(fd, chunk, (size_t)n + size + 2);
    }
    char end[512];
    int n = snprintf(end, sizeof end, "0\r\n%s\r\n", trailers);
    put(fd, end, (size_t)n);
    char *body;
    size_t length;
    answer(fd, &body, &length);
    free(chunk);
}

static int touch(const char *path, int flags) {
    int f = open(path, flags, 0600);
    if (f >= 0) close(f);
    return f >= 0 ? 0 : errno;
}

static void who(void) {
    char cwd[256], tmp[64] = "";
    struct stat status;
    struct rlimit files;
    unsigned pids = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc != NULL && (e = readdir(proc)) != NULL;) pids += e->d_name[0] >= '0' && e->d_name[0] <= '9';
    if (stat("/tmp", &status) == 0) snprintf(tmp, sizeof tmp, "%o", status.st_mode & 07777);
    getrlimit(RLIMIT_NOFILE, &files);
    FILE *f = fopen("/proc/self/status", "r");
    char line[256], caps[512] = "";
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "Cap", 3) != 0 && strncmp(line, "NoNewPrivs", 10) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        line[strcspn(line, "\t")] = ' ';
        strcat(strcat(caps, line), ";");
    }
    respond("uid %d gid %d groups %d cwd %s tmp %s pids %u files %lu stdout %d shm %d vsock %d uring %d userns %d "
            "root-write %d sysctl %d sysrq %d kmsg %d ubd %d init %d caps %s env %s",
            getuid(), getgid(), getgroups(0, NULL), getcwd(cwd, sizeof cwd), tmp, pids, (unsigned long)files.rlim_cur,
            touch("/dev/stdout", O_WRONLY), touch("/dev/shm/x", O_CREAT | O_RDWR), socket(40, SOCK_STREAM, 0) < 0 ? errno : 0,
            syscall(SYS_io_uring_setup, 1, NULL) < 0 ? errno : 0, syscall(SYS_unshare, 0x10000000) < 0 ? errno : 0,
            touch("/new", O_CREAT | O_WRONLY), touch("/proc/sys/kernel/hostname", O_WRONLY),
            touch("/proc/sysrq-trigger", O_WRONLY), touch("/proc/kcore", O_RDONLY), touch("/dev/ubda", O_RDONLY),
            kill(1, 0) < 0 ? errno : 0, caps, getenv("GREETING") != NULL ? getenv("GREETING") : "-");
}

static void connections(unsigned count) {
    int *all = calloc(count, sizeof *all);
    unsigned open_ones = 0;
    for (unsigned i = 0; i < count; i++) all[i] = dial();
    usleep(50000);
    for (unsigned i = 0; i < count; i++) {
        struct pollfd p = {all[i], POLLIN | POLLRDHUP, 0};
        open_ones += poll(&p, 1, 0) == 0;
    }
    for (unsigned i = 0; i < count; i++) close(all[i]);
    respond("%u", open_ones);
}

static void file(int write_it) {
    char text[64] = "none";
    int f = open("/tmp/kept", write_it ? O_CREAT | O_WRONLY | O_TRUNC : O_RDONLY, 0600);
    if (f >= 0 && write_it) put(f, "kept", 4);
    if (f >= 0 && !write_it) text[read(f, text, sizeof text - 1)] = 0;
    respond("%s", write_it ? "written" : text);
}

static void fill(unsigned long mib) {
    static char block[1 << 20];
    size_t written = 0;
    int f = open("/tmp/fill", O_CREAT | O_RDWR | O_TRUNC, 0600);
    ssize_t n = f < 0 ? -1 : 0;
    memset(block, 'f', sizeof block);
    while (n >= 0 && written < mib << 20 && (n = write(f, block, sizeof block)) > 0) written += (size_t)n;
    int write_error = n < 0 ? errno : 0;
    int sync_error = fsync(f) < 0 ? errno : 0;
    size_t back = 0;
    lseek(f, 0, SEEK_SET);
    while ((n = read(f, block, sizeof block)) > 0) back += block[0] == 'f' && block[n - 1] == 'f' ? (size_t)n : 0;
    respond("written %zu write %d sync %d back %zu read %d", written, write_error, sync_error, back, n < 0 ? errno : 0);
    close(f);
    unlink("/tmp/fill");
}

/* File number `i` of the test, filled with a pattern of its own; -1 when the disk is full. */
static int write_file(unsigned long i, size_t bytes) {
    char path[64];
    static unsigned block[1024];
    snprintf(path, sizeof path, "/tmp/held-%lu", i);
    int f = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    for (size_t at = 0; at < bytes; at += sizeof block) {
        for (size_t word = 0; word < 1024; word++) block[word] = (unsigned)(i * 2654435761u + at + word);
        if (write(f, block, sizeof block) != sizeof block) return -1;
    }
    int wrong = fsync(f);
    /* What is read back comes from the drive. */
    posix_fadvise(f, 0, 0, POSIX_FADV_DONTNEED);
    close(f);
    return wrong;
}

static int is_intact(unsigned long i, size_t bytes) {
    char path[64];
    static unsigned block[1024];
    snprintf(path, sizeof path, "/tmp/held-%lu", i);
    int f = open(path, O_RDONLY);
    size_t at = 0;
    for (; at < bytes && read(f, block, sizeof block) == sizeof block; at += sizeof block) {
        for (size_t word = 0; word < 1024; word++) {
            if (block[word] != (unsigned)(i * 2654435761u + at + word)) goto out;
        }
    }
out:
    close(f);
    return at == bytes;
}

static void drop(unsigned long from, unsigned long to, unsigned long step) {
    char path[64];
    for (unsigned long i = from; i < to; i += step) {
        snprintf(path, sizeof path, "/tmp/held-%lu", i);
        unlink(path);
    }
}

static void hold(unsigned long files, size_t bytes) {
    for (unsigned long i = 0; i < files; i++) {
        if (write_file(i, bytes) != 0) {
            respond("full");
            return;
        }
    }
    respond("held");
}

#define CHURN_FILES 64
/* Each round takes blocks that the one before freed, before, while and after they are discarded. */
static void churn(unsigned long rounds) {
    for (unsigned long round = 0; round < rounds; round++) {
        size_t bytes = (size_t)(4096 << round % 7);
        for (unsigned long i = 0; i < CHURN_FILES; i++) {
            if (write_file(i, bytes) != 0) {
                respond("full in round %lu", round);
                return;
            }
        }
        drop(0, CHURN_FILES, 2);
        usleep(round % 4 * 25000);
        for (unsigned long i = CHURN_FILES; i < 2 * CHURN_FILES; i++) {
            if (write_file(i, bytes) != 0) {
                respond("full again in round %lu", round);
                return;
            }
        }
        for (unsigned long i = 1; i < 2 * CHURN_FILES; i += i < CHURN_FILES - 1 ? 2 : 1) {
            if (!is_intact(i, bytes)) {
                respond("round %lu, file %lu", round, i);
                return;
            }
        }
        drop(0, 2 * CHURN_FILES, 1);
    }
    respond("intact");
}

static unsigned long long now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (unsigned long long)time.tv_sec * 1000000 + (unsigned long long)time.tv_nsec / 1000;
}

static void tick(unsigned long children) {
    char *deadline = strcasestr(in, "deadline-ms: ");
    printf("deadline %.13s begin %llu\n", deadline + 13, now_us());
    fflush(stdout);
    for (unsigned long i = 0; i < children; i++) {
        if (fork() == 0) {
            while (1) continue;
        }
    }
    for (unsigned long long last = 0;;) {
        unsigned long long now = now_us();
        if (now - last < 1000) continue;
        last = now;
        printf("%llu\n", now);
        fflush(stdout);
    }
}

static void touch_memory(unsigned long bytes) {
    char *memory = malloc(bytes);
    for (unsigned long i = 0; i < bytes; i += 4096) ((volatile char *)memory)[i] = 1;
    if (getpid() != own_pid) return;
    free(memory);
}

static void memory(unsigned long bytes, unsigned long children) {
    int ready[2], over[2];
    char byte = 0;
    own_pid = getpid();
    if (children == 0) touch_memory(bytes);
    if (children == 0 || pipe(ready) < 0 || pipe(over) < 0) return;
    for (unsigned long i = 0; i < children; i++) {
        if (fork() > 0) continue;
        close(over[1]);
        touch_memory(bytes);
        if (write(ready[1], &byte, 1) == 1 && read(over[0], &byte, 1) == 0) _exit(0);
    }
    for (unsigned long i = 0; i < children; i++) {
        if (read(ready[0], &byte, 1) != 1) break;
    }
    for (int *fd = ready; fd < ready + 2; fd++) close(*fd);
    for (int *fd = over; fd < over + 2; fd++) close(*fd);
    while (wait(NULL) > 0) continue;
}

static void break_rules(const char *command) {
    if (strcmp(command, "wrong-id") == 0) {
        int wrong = respond_as("00000000-0000-0000-0000-000000000000", "x", 1);
        int unknown = request("GET", "/nothing", "", "", 0);
        int init = request("POST", API "init/error", "", "{}", 2);
        respond("%d %d %d", wrong, unknown, init);
        return;
    }
    int first = respond("first");
    int second = respond("second");
    fprintf(stderr, "statuses %d %d\n", first, second);
}

/* What probes or exhausts the machine is for guests alone: on a host it would be the host's. */
static int is_for_guests(const char *word) {
    static const char *const words[] = {"who", "fork", "memory", "file-write", "file-read", "cat", "fill", "tick"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i]) == 0) return 1;
    }
    return 0;
}

static void obey(char *command) {
    unsigned long a = 0, b = 0;
    char word[64] = "";
    sscanf(command, "%63s %lu %lu", word, &a, &b);
    if (getenv("API_PORT") != NULL && is_for_guests(word)) respond("refused: not in a guest");
    else if (strcmp(word, "echo") == 0) respond_as(id, command + 5, strlen(command + 5));
    else if (strcmp(word, "size") == 0) fprintf(stderr, "status %d\n", respond_as(id, memset(malloc(a + 1), 'z', a), a));
    else if (strcmp(word, "stream") == 0) stream(a, b, "");
    else if (strcmp(word, "fail-trailer") == 0) {
        stream(1, 5, "Lambda-Runtime-Function-Error-Type: Function.Oops\r\n"
                     "Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJvb3BzIn0=\r\n");
    } else if (strcmp(word, "cut") == 0) {
        begin_stream();
        put(fd, "5\r\nhello\r\n", 10);
        usleep(20000);
        close(fd);
        fd = dial();
    } else if (strcmp(word, "error") == 0) {
        char path[256], headers[256];
        snprintf(path, sizeof path, API "invocation/%s/error", id);
        snprintf(headers, sizeof headers, "Lambda-Runtime-Function-Error-Type: %s\r\n", command + 6);
        request("POST", path, headers, "{\"errorMessage\":\"bad\"}", 22);
    } else if (strcmp(word, "exit") == 0) {
        printf("last words");
        fflush(stdout);
        exit((int)a);
    } else if (strcmp(word, "signal") == 0) kill(getpid(), (int)a);
    else if (strcmp(word, "abort") == 0) abort();
    else if (strcmp(word, "sleep") == 0) pause();
    else if (strcmp(word, "answered-exit") == 0) respond("bye"), exit(7);
    else if (strcmp(word, "answered-sleep") == 0) respond("bye"), pause();
    else if (strcmp(word, "memory") == 0) {
        memory(a, b);
        respond("touched");
    } else if (strcmp(word, "fork") == 0) {
        while (1) {
            if (fork() < 0) usleep(1000);
        }
    } else if (strcmp(word, "log") == 0) {
        for (unsigned long i = 0; i < a; i++) printf("line %lu\n", i);
        fflush(stdout);
        fprintf(stderr, "to stderr\n");
        respond("logged");
        printf("after the answer\n");
        fflush(stdout);
    } else if (strcmp(word, "flood") == 0) {
        static char block[1 << 16];
        for (size_t i = 0; i < sizeof block; i++) block[i] = i % 50 == 49 ? '\n' : 'f';
        while (a == 1) write(1, block, sizeof block);
        while (1) printf("flood flood flood flood flood flood flood flood\n");
    } else if (strcmp(word, "cat") == 0) {
        char text[4096];
        int f = open(command + 4, O_RDONLY);
        respond_as(id, text, f < 0 ? 0 : (size_t)read(f, text, sizeof text));
    } else if (strcmp(word, "who") == 0) who();
    else if (strcmp(word, "env") == 0) respond("%s", getenv(command + 4) == NULL ? "-" : getenv(command + 4));
    else if (strcmp(word, "pid") == 0) respond("%d", getpid());
    else if (strcmp(word, "ask") == 0) respond("%d", request("GET", "/hearth/function", "", "", 0));
    else if (strcmp(word, "head") == 0) respond_as(id, in, (size_t)(strstr(in, "\r\n\r\n") - in));
    else if (strcmp(word, "file-write") == 0) file(1);
    else if (strcmp(word, "file-read") == 0) file(0);
    else if (strcmp(word, "fill") == 0) fill(a);
    else if (strcmp(word, "hold") == 0) hold(a, b << 10);
    else if (strcmp(word, "drop") == 0) drop(0, 1 << 16, 1), respond("dropped");
    else if (strcmp(word, "churn") == 0) churn(a);
    else if (strcmp(word, "tick") == 0) tick(a);
    else if (strcmp(word, "connections") == 0) connections((unsigned)a);
    else break_rules(command);
}

static void init(const char *how) {
    if (how == NULL) return;
    if (strcmp(how, "exit") == 0) exit(3);
    if (strcmp(how, "sleep") == 0) pause();
    if (strcmp(how, "once") == 0 && touch("/tmp/once", O_RDONLY) == 0) return;
    touch("/tmp/once", O_CREAT | O_WRONLY);
    int status = request("POST", API "init/error", "Lambda-Runtime-Function-Error-Type: Runtime.Broken\r\n",
                         "{\"errorMessage\":\"init\"}", 23);
    printf("init error: %d\n", status);
    fflush(stdout);
    exit(1);
}

static _Noreturn void extension(const char *name) {
    while (strcmp(name, "extension-silent") == 0) pause();
    char headers[256], *body;
    size_t length;
    snprintf(headers, sizeof headers, "Lambda-Extension-Name: %s\r\nLambda-Extension-Accept-Feature: accountId\r\n", name);
    static const char events[] = "{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}";
    int status = request("POST", "/2020-01-01/extension/register", headers, events, sizeof events - 1);
    printf("%s registered %d %s\n", name, status, strstr(in, "\r\n\r\n") + 4);
    char *given = strcasestr(in, "extension-identifier: ");
    snprintf(id, sizeof id, "%.*s", 36, given == NULL ? "" : given + 22);
    for (;;) {
        fflush(stdout);
        char head[512];
        int n = snprintf(head, sizeof head, "GET /2020-01-01/extension/event/next HTTP/1.1\r\nLambda-Extension-Identifier: %s\r\n\r\n", id);
        put(fd, head, (size_t)n);
        if (answer(fd, &body, &length) != 200) exit(93);
        printf("%s got %.*s\n", name, (int)length, body);
        fflush(stdout);
        if (strcmp(name, "extension-crash") == 0) exit(5);
        if (strstr(body, "SHUTDOWN") != NULL) exit(0);
    }
}

/* Becomes the function that the shim names: its working directory, then its variables, each with a NUL. */
static void be_told(const char *how) {
    if (strcmp(how, "exit") == 0) exit(4);
    char *body;
    size_t length;
    static const char ask[] = "GET /hearth/function HTTP/1.1\r\nHost: x\r\n\r\n";
    put(fd, ask, sizeof ask - 1);
    if (answer(fd, &body, &length) != 200) exit(94);
    if (strcmp(how, "exit-later") == 0) exit(4);
    char *told = malloc(length);
    memcpy(told, body, length);
    clearenv();
    for (size_t at = strlen(told) + 1; at < length; at += strlen(told + at) + 1) putenv(told + at);
    if (chdir(told) < 0) exit(95);
}

int main(int count, char **arguments) {
    const char *name = strrchr(arguments[0], '/');
    fd = dial();
    if (count > 0 && name != NULL && strncmp(name, "/extension-", 11) == 0) extension(name + 1);
    if (getenv("HEARTH_PREPARED") != NULL) be_told(getenv("HEARTH_PREPARED"));
    init(getenv("INIT"));
    for (;;) {
        static const char next[] = "GET " API "invocation/next HTTP/1.1\r\nHost: x\r\n\r\n";
        char *body;
        size_t length;
        put(fd, next, sizeof next - 1);
        int status = answer(fd, &body, &length);
        if (status != 200) exit(92);
        char *given = strcasestr(in, "aws-request-id: ");
        snprintf(id, sizeof id, "%.*s", (int)strcspn(given + 16, "\r"), given + 16);
        /* As JSON, which events of the service are, it stands between quotes. */
        char *command = body[0] == '"' ? strndup(body + 1, length - 2) : strndup(body, length);
        obey(command);
        free(command);
    }
}
