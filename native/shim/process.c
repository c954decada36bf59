/*
 * The function's processes: all in one cgroup, in a mount namespace of their own, as an unprivileged user.
 *
 * Memory. `memory.current` counts the function's own memory and every file page it was the first to touch, such as
 * the runtime's program from the image; those can be dropped at any time and differ from one start to the next. The
 * peak we report is that of the rest: after each invocation, the highest `memory.current` since the last report
 * (`memory.peak`, reset through its descriptor by writing to it) less the file pages there are now. File pages that
 * came during the invocation may have come after the peak; so at worst the figure is too low by what was read from
 * images between the peak and the end, and it is never lower than what the function holds at its end. Where file
 * pages were dropped because memory was short, the peak is at the limit, and that is what is reported.
 * /tmp is memory and counts, file pages of tmpfs are no cache.
 */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop.h"
#include "world.h"

#define CGROUP GUEST_CGROUP "/function"
#define CHILD_STACK_BYTES (64 * KIB)

#if defined(__x86_64__)
#define AUDIT_ARCH_HERE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define AUDIT_ARCH_HERE AUDIT_ARCH_AARCH64
#else
#error "unknown architecture"
#endif

enum cgroup_file { FILE_PROCS, FILE_KILL, FILE_PEAK, FILE_CURRENT, FILE_STAT, FILE_EVENTS, FILE_PIDS, FILE_COUNT };

static const struct {
    const char *path;
    int flags;
} cgroup_files[FILE_COUNT] = {
    [FILE_PROCS] = {CGROUP "/cgroup.procs", O_WRONLY},     [FILE_KILL] = {CGROUP "/cgroup.kill", O_WRONLY},
    [FILE_PEAK] = {CGROUP "/memory.peak", O_RDWR},         [FILE_CURRENT] = {CGROUP "/memory.current", O_RDONLY},
    [FILE_STAT] = {CGROUP "/memory.stat", O_RDONLY},       [FILE_EVENTS] = {CGROUP "/memory.events", O_RDONLY},
    [FILE_PIDS] = {CGROUP "/pids.current", O_RDONLY},
};

static int cgroup_fds[FILE_COUNT];
static int null_fd;
static uint64_t memory_bytes_peak;
static char fault_text[256];

static const char *fault(const char *object) {
    snprintf(fault_text, sizeof fault_text, "cannot set up %s: %s", object, strerror(errno));
    return fault_text;
}

static bool write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t written = write(fd, text, strlen(text));
    close(fd);
    return written == (ssize_t)strlen(text);
}

static bool write_number(const char *path, uint64_t number) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return write_file(path, text);
}

const char *process_prepare(void) {
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount("cgroup", GUEST_CGROUP, "cgroup2", flags, NULL) < 0) return fault("cgroup2");
    if (!write_file(GUEST_CGROUP "/cgroup.subtree_control", "+memory +pids")) return fault("cgroup controllers");
    if (mkdir(CGROUP, 0755) < 0) return fault(CGROUP);
    /* One process of the function that cannot go on is the end of the function: all of it dies, and nothing else. */
    if (!write_file(CGROUP "/memory.oom.group", "1")) return fault("memory.oom.group");
    for (int i = 0; i < FILE_COUNT; i++) {
        cgroup_fds[i] = open(cgroup_files[i].path, cgroup_files[i].flags | O_CLOEXEC);
        if (cgroup_fds[i] < 0) return fault(cgroup_files[i].path);
    }
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0) return fault("/dev/null");
    /* In a user namespace the function would be root over kernel code that it has no use for. */
    write_file("/proc/sys/user/max_user_namespaces", "0");
    return NULL;
}

const char *process_limits(const struct configuration *c) {
    if (c->memory_bytes_max > 0 && !write_number(CGROUP "/memory.max", c->memory_bytes_max)) return fault("memory.max");
    if (!write_number(CGROUP "/pids.max", c->pids_max)) return fault("pids.max");
    return NULL;
}

/* --- starting ------------------------------------------------------------------------------------------------------- */

struct start {
    const struct configuration *configuration;
    char *const *arguments;
    char *const *environment;
    int error;
};

/*
 * The stream to the host and everything behind it belongs to the shim: the function gets no AF_VSOCK socket. io_uring
 * would be a way around a filter of system calls, so there is none, as in containers by default.
 */
static int filter_system_calls(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_HERE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 40 /* AF_VSOCK */, 2, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

static bool enter_root(void) {
    /* Mounts that the shim makes later come in here, none goes out. A shared one could not become the root. */
    bool good = mount(NULL, GUEST_FUNCTION_ROOT, NULL, MS_SLAVE | MS_REC, NULL) == 0;
    /* The new root over the old one, which is then taken away from under it: no directory for it is needed. */
    return good && chdir(GUEST_FUNCTION_ROOT) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 &&
           chdir("/") == 0;
}

static bool limit(int resource, uint64_t value) {
    struct rlimit limits = {value, value};
    return setrlimit(resource, &limits) == 0;
}

/* System calls, not their wrappers: glibc's tell all threads of a process, and this child shares its memory. */
static bool become_function(void) {
    return syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, FUNCTION_GID, FUNCTION_GID, FUNCTION_GID) == 0 &&
           syscall(SYS_setresuid, FUNCTION_UID, FUNCTION_UID, FUNCTION_UID) == 0 &&
           prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && filter_system_calls() == 0;
}

/* Shares the shim's memory, which waits, until it executes the program: starts cost no copy of anything. */
static int child(void *argument) {
    struct start *start = argument;
    sigset_t none;
    sigemptyset(&none);
    bool good = write(cgroup_fds[FILE_PROCS], "0", 1) == 1 && enter_root();
    good = good && setsid() >= 0 && dup2(null_fd, 0) == 0 && dup2(log_write_fds[0], 1) == 1 && dup2(log_write_fds[1], 2) == 2;
    good = good && limit(RLIMIT_NOFILE, start->configuration->open_files_max) && limit(RLIMIT_CORE, 0);
    good = good && become_function() && sigprocmask(SIG_SETMASK, &none, NULL) == 0;
    umask(022);
    if (good && chdir(start->configuration->working_directory) == 0) {
        execve(start->arguments[0], start->arguments, start->environment);
    }
    start->error = errno;
    _exit(127);
}

int world_spawn(const struct configuration *configuration, char *const arguments[], char *const environment[],
                pid_t *pid) {
    static char stack[CHILD_STACK_BYTES] __attribute__((aligned(16)));
    struct start start = {configuration, arguments, environment, 0};
    *pid = clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_NEWNS | SIGCHLD, &start);
    if (*pid < 0) {
        *pid = 0;
        return errno;
    }
    /* The one that failed is reaped like any other; nobody knows its id. */
    if (start.error != 0) *pid = 0;
    return start.error;
}

void world_terminate(pid_t pid) { kill(pid, SIGTERM); }

void world_kill_all(void) {
    if (write(cgroup_fds[FILE_KILL], "1", 1) != 1) sandbox_fault(&loop.sandbox, "cannot kill the function's processes");
}

/* --- memory --------------------------------------------------------------------------------------------------------- */

static size_t read_fd(int fd, char *into, size_t capacity) {
    ssize_t got = pread(fd, into, capacity - 1, 0);
    if (got < 0) got = 0;
    into[got] = 0;
    return (size_t)got;
}

static uint64_t read_number(int fd) {
    char text[32];
    read_fd(fd, text, sizeof text);
    return strtoull(text, NULL, 10);
}

/* The number behind `name ` at the beginning of a line. */
static uint64_t number_of(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, length) == 0 && line[length] == ' ') return strtoull(line + length + 1, NULL, 10);
    }
    return 0;
}

uint64_t world_oom_kills(void) {
    char text[256];
    read_fd(cgroup_fds[FILE_EVENTS], text, sizeof text);
    return number_of(text, "oom_kill");
}

struct memory_use world_memory(bool with_pids) {
    static char stat[8 * KIB];
    struct memory_use use = {0};
    read_fd(cgroup_fds[FILE_STAT], stat, sizeof stat);
    uint64_t droppable = number_of(stat, "inactive_file") + number_of(stat, "active_file");
    uint64_t peak = read_number(cgroup_fds[FILE_PEAK]);
    /* Starts the next period; a kernel before 6.12 cannot, then it stays the peak of all time. */
    if (write(cgroup_fds[FILE_PEAK], "0", 1) != 1) errno = 0;
    uint64_t own = peak > droppable ? peak - droppable : 0;
    if (own > memory_bytes_peak) memory_bytes_peak = own;
    use.bytes_peak = memory_bytes_peak;
    if (with_pids) {
        uint64_t current = read_number(cgroup_fds[FILE_CURRENT]);
        use.bytes_current = current > droppable ? current - droppable : 0;
        use.pids = read_number(cgroup_fds[FILE_PIDS]);
    }
    return use;
}
