/* The microVM as PID 1 finds it: mounts, network, clock. Nothing here is needed on a host. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "network.h"
#include "process.h"
#include "protocol.h"
#include "world.h"

#define RUN "/run/hearth"
#define ROOT GUEST_FUNCTION_ROOT
#define DRIVES RUN "/drive"
#define SKELETON RUN "/skeleton"
#define DEVICES RUN "/dev"
#define LOWER_CHARS_MAX 1024

static char fault_text[512];

static const char *fault(const char *what, const char *object) {
    snprintf(fault_text, sizeof fault_text, "%s %s: %s", what, object, strerror(errno));
    return fault_text;
}

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

_Noreturn void guest_power_off(void) {
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

int guest_connect(void) {
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = SHIM_PORT};
    for (int waited_ms = 0; waited_ms < CONNECT_WAIT_MS; waited_ms++) {
        int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
        if (fd >= 0) close(fd);
        sleep_ms(1);
    }
    guest_power_off();
}

uint16_t guest_api_port(void) { return API_PORT; }

void guest_set_clock(uint64_t unix_us) {
    struct timespec time = {(time_t)(unix_us / 1000000), (long)(unix_us % 1000000) * 1000};
    clock_settime(CLOCK_REALTIME, &time);
}

/* --- before Configure: all that is the same for every function ---------------------------------------------------- */

/* lo with 127.0.0.1, which the kernel adds by itself, and with Lambda's address of the Runtime API. */
static const char *network(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fault("cannot open", "a socket");
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK};
    const char *wrong = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? fault("cannot bring up", "lo") : NULL;
    struct sockaddr_in address = {.sin_family = AF_INET};
    request = (struct ifreq){.ifr_name = "lo:1"};
    inet_pton(AF_INET, "169.254.100.1", &address.sin_addr);
    memcpy(&request.ifr_addr, &address, sizeof address);
    if (wrong == NULL && ioctl(fd, SIOCSIFADDR, &request) < 0) wrong = fault("cannot add", "169.254.100.1 to lo");
    inet_pton(AF_INET, "255.255.255.255", &address.sin_addr);
    memcpy(&request.ifr_netmask, &address, sizeof address);
    if (wrong == NULL) ioctl(fd, SIOCSIFNETMASK, &request);
    close(fd);
    return wrong;
}

static const struct {
    const char *path;
    unsigned major, minor;
} device_nodes[] = {
    {DEVICES "/null", 1, 3},    {DEVICES "/zero", 1, 5},    {DEVICES "/full", 1, 7},
    {DEVICES "/random", 1, 8},  {DEVICES "/urandom", 1, 9}, {DEVICES "/tty", 5, 0},
};

static const struct {
    const char *target, *path;
} device_links[] = {
    {"/proc/self/fd", DEVICES "/fd"},         {"/proc/self/fd/0", DEVICES "/stdin"},
    {"/proc/self/fd/1", DEVICES "/stdout"},   {"/proc/self/fd/2", DEVICES "/stderr"},
    {"pts/ptmx", DEVICES "/ptmx"},
};

/* The function's own /dev: nothing of the machine's drives or consoles is in it. */
static const char *devices(void) {
    if (mount("dev", DEVICES, "tmpfs", MS_NOSUID, "mode=755,size=64k") < 0) return fault("cannot mount", DEVICES);
    for (size_t i = 0; i < sizeof device_nodes / sizeof device_nodes[0]; i++) {
        dev_t device = makedev(device_nodes[i].major, device_nodes[i].minor);
        if (mknod(device_nodes[i].path, S_IFCHR | 0666, device) < 0) return fault("cannot make", device_nodes[i].path);
    }
    for (size_t i = 0; i < sizeof device_links / sizeof device_links[0]; i++) {
        if (symlink(device_links[i].target, device_links[i].path) < 0) return fault("cannot make", device_links[i].path);
    }
    if (mkdir(DEVICES "/pts", 0755) < 0 || mkdir(DEVICES "/shm", 01777) < 0) return fault("cannot make", DEVICES "/pts");
    unsigned long flags = MS_NOSUID | MS_NOEXEC;
    /* A kernel without pseudo-terminals is as good. */
    mount("devpts", DEVICES "/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=620");
    if (mount("shm", DEVICES "/shm", "tmpfs", flags | MS_NODEV, "mode=1777") < 0) return fault("cannot mount", "/dev/shm");
    return NULL;
}

static const char *const boot_directories[] = {
    RUN,
    ROOT,
    DRIVES,
    DEVICES,
    GUEST_CGROUP,
    SKELETON,
    SKELETON "/proc",
    SKELETON "/sys",
    SKELETON "/dev",
    SKELETON "/tmp",
    SKELETON "/opt",
    SKELETON "/mnt",
    SKELETON "/var",
    SKELETON "/var/task",
    SKELETON "/var/runtime",
};

/* Deadlines hold, and the host is heard, however many threads the function has. What we start does not inherit it. */
static void take_precedence(void) {
    struct sched_param priority = {.sched_priority = 1};
    syscall(SYS_sched_setscheduler, 0, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
}

const char *guest_prepare(void) {
    umask(0);
    take_precedence();
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 && errno != EBUSY) {
        return fault("cannot mount", "/proc");
    }
    /* The kernel has done it by itself where it is configured to. */
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0 && errno != EBUSY) return fault("cannot mount", "/dev");
    if (mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0) return fault("cannot mount", "/run");
    for (size_t i = 0; i < sizeof boot_directories / sizeof boot_directories[0]; i++) {
        if (mkdir(boot_directories[i], 0755) < 0) return fault("cannot make", boot_directories[i]);
    }
    const char *wrong = network();
    if (wrong == NULL) wrong = devices();
    if (wrong == NULL) wrong = process_prepare();
    /* Nothing the function starts may ever gain a capability; ours stay as they are. */
    for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++) continue;
    return wrong;
}

/* --- Configure: the function's root --------------------------------------------------------------------------------- */

static const char *mount_file_system(const char *device, const char *path, const char *type, unsigned long flags,
                                     const char *options) {
    for (int waited_ms = 0;; waited_ms++) {
        if (mount(device, path, type, flags, options) == 0) return NULL;
        /* A drive that was attached a moment ago may have no node yet, or a node but no size. */
        bool may_come = errno == ENOENT || errno == ENXIO || errno == ENODEV || errno == EIO;
        if (!may_come || waited_ms >= DRIVE_WAIT_MS) return fault("cannot mount drive", device);
        sleep_ms(1);
    }
}

static const char *mount_drive(const char *device, const char *path, unsigned long flags) {
    return mount_file_system(device, path, "erofs", flags | MS_RDONLY | MS_NODEV, NULL);
}

/* Mounts drives at places of their own and adds those to the list of an overlay, the last one first. */
static const char *stack_drives(const char *const drives[], size_t count, const char *kind, unsigned long flags,
                                char lower[LOWER_CHARS_MAX]) {
    size_t at = strlen(lower);
    for (size_t i = count; i-- > 0;) {
        char path[64];
        snprintf(path, sizeof path, DRIVES "/%s%zu", kind, i);
        if (mkdir(path, 0755) < 0) return fault("cannot make", path);
        const char *wrong = mount_drive(drives[i], path, flags);
        if (wrong != NULL) return wrong;
        at += (size_t)snprintf(lower + at, LOWER_CHARS_MAX - at, "%s%s", at == 9 ? "" : ":", path);
    }
    return NULL;
}

static bool root_has_mount_points(void) {
    static const char *const needed[] = {"/proc", "/sys", "/dev", "/tmp", "/opt", "/var/task"};
    struct stat status;
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (stat(needed[i], &status) < 0 || !S_ISDIR(status.st_mode)) return false;
    }
    return true;
}

/* The runtime's images over the base image, with a skeleton of mount points below all. */
static const char *mount_root(const struct configuration *c) {
    if (c->root_drive_count == 0 && root_has_mount_points()) {
        if (mount("/", ROOT, NULL, MS_BIND, NULL) < 0) return fault("cannot bind", "the base image");
        if (mount(NULL, ROOT, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID, NULL) < 0) {
            return fault("cannot remount", "the base image");
        }
        return NULL;
    }
    char lower[LOWER_CHARS_MAX] = "lowerdir=";
    const char *wrong = stack_drives(c->root_drives, c->root_drive_count, "root", MS_NOSUID, lower);
    if (wrong != NULL) return wrong;
    strcat(lower, c->root_drive_count > 0 ? ":/:" SKELETON : "/:" SKELETON);
    unsigned long flags = MS_RDONLY | MS_NODEV | MS_NOSUID;
    return mount("root", ROOT, "overlay", flags, lower) < 0 ? fault("cannot stack", lower) : NULL;
}

static const char *mount_layers(const struct configuration *c) {
    unsigned long flags = MS_RDONLY | MS_NODEV | MS_NOSUID;
    if (c->layer_drive_count == 0) return NULL;
    if (c->layer_drive_count == 1) return mount_drive(c->layer_drives[0], ROOT "/opt", flags);
    char lower[LOWER_CHARS_MAX] = "lowerdir=";
    const char *wrong = stack_drives(c->layer_drives, c->layer_drive_count, "layer", flags, lower);
    if (wrong != NULL) return wrong;
    return mount("opt", ROOT "/opt", "overlay", flags, lower) < 0 ? fault("cannot stack", lower) : NULL;
}

/* A function sees its own processes only, and no knob of the kernel is writable even where file modes would allow it. */
static const char *mount_proc(void) {
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount("proc", ROOT "/proc", "proc", flags, "hidepid=invisible") < 0) return fault("cannot mount", "/proc");
    if (mount(ROOT "/proc/sys", ROOT "/proc/sys", NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, ROOT "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0) {
        return fault("cannot protect", "/proc/sys");
    }
    static const char *const masked[] = {ROOT "/proc/sysrq-trigger", ROOT "/proc/kcore", ROOT "/proc/kmsg"};
    for (size_t i = 0; i < sizeof masked / sizeof masked[0]; i++) {
        if (mount(DEVICES "/null", masked[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT) {
            return fault("cannot mask", masked[i]);
        }
    }
    return NULL;
}

/* On a drive it costs no memory but cache, which can be dropped. */
static const char *mount_tmp(const struct configuration *c, unsigned long flags) {
    /* What is deleted goes back to the host. */
    if (c->scratch_drive != NULL) {
        return mount_file_system(c->scratch_drive, ROOT "/tmp", "ext2", flags | MS_NOATIME, "discard");
    }
    char options[64];
    snprintf(options, sizeof options, "mode=1777,size=%llu", (unsigned long long)c->tmp_bytes_max);
    return mount("tmp", ROOT "/tmp", "tmpfs", flags, options) < 0 ? fault("cannot mount", "/tmp") : NULL;
}

const char *world_mount_root(const struct configuration *c) {
    const char *wrong = mount_root(c);
    if (wrong == NULL) wrong = mount_proc();
    if (wrong != NULL) return wrong;
    if (mount(DEVICES, ROOT "/dev", NULL, MS_BIND | MS_REC, NULL) < 0) return fault("cannot bind", "/dev");
    /* What is mounted here from now on appears in the namespaces of processes that are started before (process.c). */
    return mount(NULL, ROOT, NULL, MS_SHARED, NULL) < 0 ? fault("cannot share", ROOT) : NULL;
}

const char *world_mount_function(const struct configuration *c) {
    unsigned long flags = MS_NOSUID | MS_NODEV;
    const char *wrong = c->code_drive == NULL ? NULL : mount_drive(c->code_drive, ROOT "/var/task", flags);
    if (wrong == NULL) wrong = mount_layers(c);
    if (wrong == NULL) wrong = network_configure(c);
    if (wrong == NULL) wrong = mount_tmp(c, flags);
    return wrong != NULL ? wrong : process_limits(c);
}

size_t world_list_extensions(char names[][EXTENSION_NAME_CHARS_MAX + 1]) {
    DIR *directory = opendir(ROOT "/opt/extensions");
    if (directory == NULL) return 0;
    size_t count = 0;
    struct dirent *entry;
    while (count <= EXTENSIONS_MAX && (entry = readdir(directory)) != NULL) {
        struct stat status;
        bool is_program = fstatat(dirfd(directory), entry->d_name, &status, 0) == 0 && S_ISREG(status.st_mode);
        if (!is_program || strlen(entry->d_name) > EXTENSION_NAME_CHARS_MAX) continue;
        strcpy(names[count++], entry->d_name);
    }
    closedir(directory);
    return count;
}
