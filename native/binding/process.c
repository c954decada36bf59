/*
 * Starting a hypervisor's process. Unlike child_process.spawn the child shares this process's memory until it
 * executes (vfork), so a large monitor with thousands of mappings starts one as fast as a small one; and it enters
 * its cgroups, its CPU, its limits and its user before the program runs, not after. Entering a cgroup can take 10 ms
 * (an RCU grace period), and vfork holds the thread that calls it: so that is one of libuv's pool, not the loop's.
 * Those live as long as the process, which matters because the child is to die with the thread that made it.
 *
 * As root the child is the first process of a PID namespace. So its end, and nothing else, is the end of all that it
 * will ever have made, whatever that was doing (pid_namespaces(7)): a monitor that is killed while bwrap is still at
 * work leaves nothing, and once the child is reaped the last of the others is gone.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NUMBERS_MAX 16
/* What the child may use until it executes: a few system calls deep. */
#define STACK_BYTES (32 * 1024)
/* Of the host's memory, per mille, that a guest seems larger than it is: when there is none left, guests end, not we. */
#define OOM_SCORE_ADJUST "500"

struct child {
	char **arguments;
	char **environment;
	int descriptors[NUMBERS_MAX]; /* the child's 0, 1, 2, … */
	size_t descriptor_count;
	int cgroups[NUMBERS_MAX]; /* descriptors of cgroup.procs files */
	size_t cgroup_count;
	double limits[NUMBERS_MAX]; /* resource, value, resource, value, … */
	size_t limit_count;
	int cpu; /* -1: any */
	int user; /* -1: stay who we are */
	pid_t parent;
	int failed_errno;
	int failed_stage; /* see STAGES in src/vmm/native.ts */
	pid_t pid;
	int pidfd;
	_Alignas(16) char stack[STACK_BYTES];
	napi_async_work work;
	napi_ref done;
};

static void child_fail(struct child *child, int stage)
{
	child->failed_errno = errno;
	child->failed_stage = stage;
	_exit(127);
}

static void child_reset_signals(void)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		if (number != SIGKILL && number != SIGSTOP)
			sigaction(number, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Without it only the choice of the kernel's out-of-memory killer is worse. */
static void child_adjust_oom_score(void)
{
	int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (file >= 0 && write(file, OOM_SCORE_ADJUST, sizeof(OOM_SCORE_ADJUST) - 1) < 0)
		errno = 0;
}

/* Our parent, also across a PID namespace, where getppid() says 0; -1 when it cannot be told. */
static pid_t child_parent(void)
{
	char text[512];
	int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
	const char *name_end;

	if (length <= 0)
		return -1;
	text[length] = 0;
	/* pid (name) state ppid …, and a name may hold anything. */
	name_end = strrchr(text, ')');
	return name_end && strlen(name_end) > 4 ? (pid_t)strtol(name_end + 4, NULL, 10) : -1;
}

/* Runs on the parent's memory: system calls only, and never returns. */
static int child_run(void *data)
{
	struct child *child = data;
	int moved[NUMBERS_MAX];
	cpu_set_t cpus;

	child_reset_signals();
	setsid();
	for (size_t i = 0; i < child->cgroup_count; i++)
		if (write(child->cgroups[i], "0", 1) < 0)
			child_fail(child, 1);
	child_adjust_oom_score();
	if (child->cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET((size_t)child->cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
			child_fail(child, 2);
	}
	/* First out of the way of every target, then into place. The rest is closed: what we open may be beyond a limit else. */
	for (size_t i = 0; i < child->descriptor_count; i++) {
		moved[i] = fcntl(child->descriptors[i], F_DUPFD_CLOEXEC, (int)child->descriptor_count);
		if (moved[i] < 0)
			child_fail(child, 4);
	}
	for (size_t i = 0; i < child->descriptor_count; i++)
		if (dup2(moved[i], (int)i) < 0)
			child_fail(child, 4);
	syscall(SYS_close_range, (unsigned)child->descriptor_count, ~0U, 0);
	/* Only now: ours may be beyond what the child may open. */
	for (size_t i = 0; i + 1 < child->limit_count; i += 2) {
		struct rlimit limit = { (rlim_t)child->limits[i + 1], (rlim_t)child->limits[i + 1] };

		if (setrlimit((__rlimit_resource_t)child->limits[i], &limit) < 0)
			child_fail(child, 3);
	}
	/* The raw calls: glibc's would ask every thread of the parent to change its user too. */
	if (child->user >= 0) {
		if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, child->user, child->user, child->user) < 0 ||
		    syscall(SYS_setresuid, child->user, child->user, child->user) < 0)
			child_fail(child, 5);
	}
	/* After the change of user, which clears it. A parent that died before it cannot be told of, so that is looked up. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (child_parent() != child->parent) {
		errno = ESRCH;
		child_fail(child, 0);
	}
	/* A UML kernel wants its addresses where it was linked, and starts itself a second time to get that: its jail forbids it. */
	personality(ADDR_NO_RANDOMIZE);
	execve(child->arguments[0], child->arguments, child->environment);
	child_fail(child, 6);
	return 127;
}

/* As vfork, but on a stack of its own and with flags. */
static void child_start(struct child *child, int namespace)
{
	child->pid = clone(child_run, child->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD | namespace, child);
}

static char **to_texts(napi_env env, napi_value array)
{
	uint32_t length = 0;
	char **texts;

	NAPI_OK(napi_get_array_length(env, array, &length));
	texts = calloc((size_t)length + 1, sizeof(*texts));
	for (uint32_t i = 0; texts && i < length; i++) {
		napi_value element;
		size_t bytes = 0;

		NAPI_OK(napi_get_element(env, array, i, &element));
		NAPI_OK(napi_get_value_string_utf8(env, element, NULL, 0, &bytes));
		texts[i] = malloc(bytes + 1);
		if (texts[i])
			NAPI_OK(napi_get_value_string_utf8(env, element, texts[i], bytes + 1, &bytes));
	}
	return texts;
}

static void free_texts(char **texts)
{
	for (char **text = texts; text && *text; text++)
		free(*text);
	free(texts);
}

/* On a thread of the pool. */
static void spawn_execute(napi_env env, void *data)
{
	struct child *child = data;
	sigset_t all, before;

	(void)env;
	child->parent = getpid();
	/* No handler of ours may run in the child while it shares our memory. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	child_start(child, CLONE_NEWPID);
	if (child->pid < 0 && errno == EPERM)
		child_start(child, 0);
	if (child->pid < 0)
		child->failed_errno = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (child->pid < 0)
		return;
	if (!child->failed_errno) {
		child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
		if (child->pidfd >= 0)
			return;
		child->failed_errno = errno;
		kill(child->pid, SIGKILL);
	}
	waitpid(child->pid, NULL, 0);
}

/* Back on the loop: done(error, pid or the stage that failed, pidfd). */
static void spawn_complete(napi_env env, napi_status status, void *data)
{
	struct child *child = data;
	napi_value done, receiver, result[3], ignored;
	int error = child->failed_errno;

	(void)status;
	result[0] = from_int(env, -error);
	result[1] = from_int(env, error ? child->failed_stage : child->pid);
	result[2] = from_int(env, error ? -1 : child->pidfd);
	NAPI_OK(napi_get_reference_value(env, child->done, &done));
	NAPI_OK(napi_get_global(env, &receiver));
	NAPI_OK(napi_delete_reference(env, child->done));
	NAPI_OK(napi_delete_async_work(env, child->work));
	free_texts(child->arguments);
	free_texts(child->environment);
	free(child);
	NAPI_OK(napi_call_function(env, receiver, done, 3, result, &ignored));
}

static size_t copy_array(napi_env env, napi_value array, void *numbers, size_t size)
{
	size_t length = 0;
	void *data = to_array(env, array, &length);

	if (length > NUMBERS_MAX)
		napi_fatal_error("hearth binding", NAPI_AUTO_LENGTH, "spawn: too many numbers", NAPI_AUTO_LENGTH);
	if (length > 0)
		memcpy(numbers, data, length * size);
	return length;
}

/*
 * spawn(arguments, environment, descriptors, cgroups, limits, cpu, user, done): 0, or -errno. Then done(0, pid, pidfd)
 * once the program runs, or done(-errno, stage, -1). The descriptors must stay open until then.
 */
static napi_value spawn(napi_env env, napi_callback_info info)
{
	struct child *child = calloc(1, sizeof(*child));
	napi_value argument[8], name;

	if (!child)
		return from_int(env, -ENOMEM);
	arguments(env, info, argument, 8);
	child->arguments = to_texts(env, argument[0]);
	child->environment = to_texts(env, argument[1]);
	child->descriptor_count = copy_array(env, argument[2], child->descriptors, sizeof(*child->descriptors));
	child->cgroup_count = copy_array(env, argument[3], child->cgroups, sizeof(*child->cgroups));
	child->limit_count = copy_array(env, argument[4], child->limits, sizeof(*child->limits));
	child->cpu = to_int(env, argument[5]);
	child->user = to_int(env, argument[6]);
	NAPI_OK(napi_create_reference(env, argument[7], 1, &child->done));
	NAPI_OK(napi_create_string_utf8(env, "hearth:spawn", NAPI_AUTO_LENGTH, &name));
	NAPI_OK(napi_create_async_work(env, NULL, name, spawn_execute, spawn_complete, child, &child->work));
	NAPI_OK(napi_queue_async_work(env, child->work));
	return from_int(env, 0);
}

/* reap(pid, result): 1 when it ended (result: exit code or -1, signal or 0), 0 while it runs, or -errno. */
static napi_value reap(napi_env env, napi_callback_info info)
{
	napi_value argument[2];
	size_t length;
	int status = 0, *result;
	pid_t pid;

	arguments(env, info, argument, 2);
	result = to_array(env, argument[1], &length);
	pid = waitpid(to_int(env, argument[0]), &status, WNOHANG);
	if (pid <= 0)
		return from_result(env, pid);
	result[0] = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	result[1] = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	return from_int(env, 1);
}

/* openProcess(pid): a pidfd of the process that has this number now, or -errno. The caller closes it. */
static napi_value open_process(napi_env env, napi_callback_info info)
{
	napi_value argument[1];

	arguments(env, info, argument, 1);
	/* It is closed when we run another program (O_CLOEXEC is the kernel's default for these). */
	return from_result(env, syscall(SYS_pidfd_open, to_int(env, argument[0]), 0));
}

/* sendSignal(pidfd, signal): 0 or -errno. A pidfd cannot hit another process that got the same number. */
static napi_value send_signal(napi_env env, napi_callback_info info)
{
	napi_value argument[2];

	arguments(env, info, argument, 2);
	return from_result(env, syscall(SYS_pidfd_send_signal, to_int(env, argument[0]), to_int(env, argument[1]), NULL, 0));
}

/*
 * receiveViolation(listener, bytes): 1 with the next report of a seccomp filter in bytes (struct seccomp_notif), 0 when
 * there is none (its maker may have been killed meanwhile), or -errno.
 */
static napi_value receive_violation(napi_env env, napi_callback_info info)
{
	struct seccomp_notif report = { 0 };
	struct pollfd ready = { .events = POLLIN };
	napi_value argument[2];
	size_t length;
	void *bytes;

	arguments(env, info, argument, 2);
	ready.fd = to_int(env, argument[0]);
	bytes = to_array(env, argument[1], &length);
	/* The call would wait for one. */
	if (poll(&ready, 1, 0) < 1 || !(ready.revents & POLLIN))
		return from_int(env, 0);
	if (ioctl(ready.fd, SECCOMP_IOCTL_NOTIF_RECV, &report) < 0)
		return from_result(env, errno == ENOENT ? 0 : -1);
	memcpy(bytes, &report, length < sizeof(report) ? length : sizeof(report));
	return from_int(env, 1);
}

/* setAffinity(tasks, cpu): puts tasks on one CPU; 0, or -errno of the last failure. Those that are gone do not count. */
static napi_value set_affinity(napi_env env, napi_callback_info info)
{
	napi_value argument[2];
	size_t length = 0;
	int error = 0, *tasks;
	cpu_set_t cpus;

	arguments(env, info, argument, 2);
	tasks = to_array(env, argument[0], &length);
	CPU_ZERO(&cpus);
	CPU_SET((size_t)to_int(env, argument[1]), &cpus);
	for (size_t i = 0; i < length; i++)
		if (sched_setaffinity(tasks[i], sizeof(cpus), &cpus) < 0 && errno != ESRCH)
			error = -errno;
	return from_int(env, error);
}

/*
 * limitFiles(tasks, user, bytes): RLIMIT_FSIZE of processes, given by any of their tasks, in so far as their hard limit allows; 0, or
 * -errno of the last failure. Those that are gone do not count. The right to set others' limits (CAP_SYS_RESOURCE) is
 * not given everywhere; a process of the same user and group has it too, so this thread's real ids are theirs meanwhile.
 * The raw calls: the C library's would change every thread's.
 */
static napi_value limit_files(napi_env env, napi_callback_info info)
{
	napi_value argument[3];
	size_t length = 0;
	int error = 0, *tasks, user;
	rlim_t bytes;
	struct rlimit limit;

	arguments(env, info, argument, 3);
	tasks = to_array(env, argument[0], &length);
	user = to_int(env, argument[1]);
	bytes = (rlim_t)to_double(env, argument[2]);
	if (user >= 0 && (syscall(SYS_setresgid, user, -1, -1) < 0 || syscall(SYS_setresuid, user, -1, -1) < 0))
		error = -errno;
	for (size_t i = 0; i < length && error == 0; i++) {
		if (prlimit(tasks[i], RLIMIT_FSIZE, NULL, &limit) == 0) {
			limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
			if (prlimit(tasks[i], RLIMIT_FSIZE, &limit, NULL) == 0)
				continue;
		}
		if (errno != ESRCH)
			error = -errno;
	}
	if (user >= 0 && (syscall(SYS_setresuid, 0, -1, -1) < 0 || syscall(SYS_setresgid, 0, -1, -1) < 0))
		napi_fatal_error("hearth binding", NAPI_AUTO_LENGTH, "cannot be root again", NAPI_AUTO_LENGTH);
	return from_int(env, error);
}

/* struct sched_attr of linux/sched/types.h, in its first version. */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/*
 * prioritize(nice, slice): niceness of the calling thread, and the slice in ns that it asks the scheduler for; threads and
 * processes that it makes have neither. 0 or -errno.
 */
static napi_value prioritize(napi_env env, napi_callback_info info)
{
	struct attributes attributes = { .size = sizeof(attributes), .policy = SCHED_OTHER, .flags = 1 /* RESET_ON_FORK */ };
	napi_value argument[2];

	arguments(env, info, argument, 2);
	attributes.nice = to_int(env, argument[0]);
	attributes.runtime = (uint64_t)to_int(env, argument[1]);
	return from_result(env, syscall(SYS_sched_setattr, 0, &attributes, 0));
}

void process_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "spawn", spawn);
	export_function(env, exports, "reap", reap);
	export_function(env, exports, "openProcess", open_process);
	export_function(env, exports, "sendSignal", send_signal);
	export_function(env, exports, "receiveViolation", receive_violation);
	export_function(env, exports, "setAffinity", set_affinity);
	export_function(env, exports, "limitFiles", limit_files);
	export_function(env, exports, "prioritize", prioritize);
}
