/*
 * Starting a hypervisor's process. Unlike child_process.spawn the child shares this process's memory until it
 * executes (vfork), so a large monitor with thousands of mappings starts one as fast as a small one; and it enters
 * its cgroups, its CPU, its limits and its user before the program runs, not after.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 64

struct child {
	char **arguments;
	char **environment;
	const int *descriptors; /* the child's 0, 1, 2, … */
	size_t descriptor_count;
	const int *cgroups; /* descriptors of cgroup.procs files */
	size_t cgroup_count;
	const double *limits; /* resource, value, resource, value, … */
	size_t limit_count;
	int cpu; /* -1: any */
	int user; /* -1: stay who we are */
	int failed_errno;
	int failed_stage; /* see STAGES in src/vmm/native.ts */
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

/* Runs on the parent's memory and a borrowed stack: system calls only, and never returns. */
static void child_run(struct child *child)
{
	int moved[DESCRIPTORS_MAX];
	cpu_set_t cpus;

	child_reset_signals();
	setsid();
	for (size_t i = 0; i < child->cgroup_count; i++)
		if (write(child->cgroups[i], "0", 1) < 0)
			child_fail(child, 1);
	if (child->cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET((size_t)child->cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
			child_fail(child, 2);
	}
	/* First out of the way of every target, then into place; close-on-exec takes the rest. */
	for (size_t i = 0; i < child->descriptor_count; i++) {
		moved[i] = fcntl(child->descriptors[i], F_DUPFD_CLOEXEC, (int)child->descriptor_count);
		if (moved[i] < 0)
			child_fail(child, 4);
	}
	for (size_t i = 0; i < child->descriptor_count; i++)
		if (dup2(moved[i], (int)i) < 0)
			child_fail(child, 4);
	syscall(SYS_close_range, (unsigned)child->descriptor_count, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
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
	/* After the change of user, which clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execve(child->arguments[0], child->arguments, child->environment);
	child_fail(child, 6);
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

/*
 * spawn(arguments, environment, descriptors, cgroups, limits, cpu, user, result): result[0] is the pid, result[1] a
 * pidfd. Returns 0, or -errno with result[0] the stage that failed.
 */
static napi_value spawn(napi_env env, napi_callback_info info)
{
	struct child child = { .failed_errno = 0 };
	napi_value argument[8];
	sigset_t all, before;
	size_t length;
	int *result, error;
	pid_t pid;

	arguments(env, info, argument, 8);
	child.arguments = to_texts(env, argument[0]);
	child.environment = to_texts(env, argument[1]);
	child.descriptors = to_array(env, argument[2], &child.descriptor_count);
	child.cgroups = to_array(env, argument[3], &child.cgroup_count);
	child.limits = to_array(env, argument[4], &child.limit_count);
	child.cpu = to_int(env, argument[5]);
	child.user = to_int(env, argument[6]);
	result = to_array(env, argument[7], &length);

	/* No handler of ours may run in the child while it shares our memory. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = vfork();
	if (pid == 0)
		child_run(&child);
	error = pid < 0 ? errno : child.failed_errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	free_texts(child.arguments);
	free_texts(child.environment);

	if (error) {
		if (pid > 0)
			waitpid(pid, NULL, 0);
		result[0] = child.failed_stage;
		return from_int(env, -error);
	}
	result[0] = pid;
	result[1] = (int)syscall(SYS_pidfd_open, pid, 0);
	if (result[1] < 0) {
		error = errno;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return from_int(env, -error);
	}
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

/* sendSignal(pidfd, signal): 0 or -errno. A pidfd cannot hit another process that got the same number. */
static napi_value send_signal(napi_env env, napi_callback_info info)
{
	napi_value argument[2];

	arguments(env, info, argument, 2);
	return from_result(env, syscall(SYS_pidfd_send_signal, to_int(env, argument[0]), to_int(env, argument[1]), NULL, 0));
}

void process_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "spawn", spawn);
	export_function(env, exports, "reap", reap);
	export_function(env, exports, "sendSignal", send_signal);
}
