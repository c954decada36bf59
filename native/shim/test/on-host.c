/*
 * Stands in for guest.c and process.c, so that the rest of the shim runs as an ordinary program under sanitizers:
 * a Unix socket instead of vsock, no mounts, no cgroup. Never part of the shim.
 * Environment: SHIM_SOCKET, SHIM_API_PORT, SHIM_OPT (a directory in place of /opt).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../loop.h"
#include "../world.h"

#define STARTED_MAX 64

static pid_t started[STARTED_MAX];
static size_t started_count;

_Noreturn void guest_power_off(void) {
    world_kill_all();
    exit(0);
}

int guest_connect(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("SHIM_SOCKET"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) exit(2);
    /* As PID 1, what the function leaves behind becomes ours. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return fd;
}

const char *guest_prepare(void) { return NULL; }

uint16_t guest_api_port(void) { return (uint16_t)atoi(getenv("SHIM_API_PORT")); }

void guest_set_clock(uint64_t unix_us) { (void)unix_us; }

const char *world_mount_root(const struct configuration *configuration) {
    (void)configuration;
    return NULL;
}

const char *world_mount_function(const struct configuration *configuration) {
    (void)configuration;
    return NULL;
}

static void in_opt(char *into, size_t capacity, const char *path) {
    const char *opt = getenv("SHIM_OPT");
    bool inside = opt != NULL && strncmp(path, "/opt/", 5) == 0;
    snprintf(into, capacity, "%s%s", inside ? opt : "", inside ? path + 4 : path);
}

size_t world_list_extensions(char names[][EXTENSION_NAME_CHARS_MAX + 1]) {
    char path[512];
    in_opt(path, sizeof path, "/opt/extensions");
    DIR *directory = opendir(path);
    size_t count = 0;
    struct dirent *entry;
    while (directory != NULL && count <= EXTENSIONS_MAX && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') snprintf(names[count++], EXTENSION_NAME_CHARS_MAX + 1, "%.127s", entry->d_name);
    }
    if (directory != NULL) closedir(directory);
    return count;
}

int world_spawn(const struct configuration *configuration, char *const arguments[], char *const environment[],
                pid_t *pid) {
    char path[512];
    in_opt(path, sizeof path, arguments[0]);
    *pid = 0;
    if (access(path, X_OK) < 0) return errno;
    pid_t child = fork();
    if (child < 0) return errno;
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(open("/dev/null", O_RDWR), 0);
        dup2(log_write_fds[0], 1);
        dup2(log_write_fds[1], 2);
        if (chdir(configuration->working_directory) == 0) execve(path, arguments, environment);
        _exit(127);
    }
    setpgid(child, child);
    started[started_count++ % STARTED_MAX] = child;
    *pid = child;
    return 0;
}

void world_terminate(pid_t pid) { kill(pid, SIGTERM); }

void world_kill_all(void) {
    for (size_t i = 0; i < STARTED_MAX; i++) {
        /* Only a group that still has a child of ours: its number may be somebody else's by now. */
        siginfo_t info;
        bool is_ours = started[i] > 0 && waitid(P_PGID, (id_t)started[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0;
        if (is_ours) kill(-started[i], SIGKILL);
        else started[i] = 0;
    }
}

uint64_t world_oom_kills(void) { return 0; }

struct memory_use world_memory(bool with_pids) {
    (void)with_pids;
    return (struct memory_use){1, 2, 3};
}
