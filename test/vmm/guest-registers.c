/*
 * A guest program, run as PID 1: uses floating point and vector registers in several threads, in processes, and across
 * signals, faults and system calls, and says on the host's vsock port 1024 what it found: "hello\n", then a line a
 * check, "NAME wrong COUNT\n", then "end\n".
 */
#define _GNU_SOURCE
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include <elf.h>

#define ROUNDS 4000
#define THREADS 4

typedef double vector __attribute__((vector_size(16)));

/* A system call in the middle of a computation: everything but what the ABI gives up must come through. */
static long call_between(long number, double *scalar, vector *wide)
{
	register long result __asm__("rax") = number;
	double x = *scalar;
	vector v = *wide;

	__asm__ volatile("syscall" : "+r"(result), "+x"(x), "+x"(v) : : "rcx", "r11", "memory");
	*scalar = x;
	*wide = v;
	return result;
}

static int disturbed(long id, long number)
{
	double x = (double)id + 0.25;
	vector v = { (double)id + 0.5, (double)id * 3 };

	call_between(number, &x, &v);
	return x != (double)id + 0.25 || v[0] != (double)id + 0.5 || v[1] != (double)id * 3;
}

static void *in_thread(void *argument)
{
	long id = (long)argument, wrong = 0;

	/* Each yields to others of the same address space at other moments. */
	for (int i = 0; i < ROUNDS; i++)
		wrong += disturbed(id * ROUNDS + i, i % (id + 3) == 0 ? SYS_sched_yield : SYS_getppid);
	return (void *)wrong;
}

static long threads(void)
{
	pthread_t all[THREADS];
	long wrong = 0;

	for (long i = 0; i < THREADS; i++)
		pthread_create(&all[i], NULL, in_thread, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		void *found;

		pthread_join(all[i], &found);
		wrong += (long)found;
	}
	return wrong;
}

static volatile double handled;

static void handler(int number)
{
	double x = number;

	for (int i = 0; i < 20; i++)
		x = x * 1.01 + i;
	handled = x;
}

static long signals(void)
{
	long wrong = 0;

	signal(SIGUSR1, handler);
	for (int i = 0; i < ROUNDS; i++) {
		double x = i + 0.125;

		/* Kept in a register across the handler. */
		__asm__ volatile("" : "+x"(x));
		kill(getpid(), SIGUSR1);
		__asm__ volatile("" : "+x"(x));
		wrong += x != i + 0.125;
	}
	return wrong;
}

static long faults(void)
{
	char *fresh = mmap(NULL, (size_t)ROUNDS * 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long wrong = 0;

	for (int i = 0; i < ROUNDS; i++) {
		double x = i + 0.375;
		char *page = fresh + (size_t)i * 8192;

		__asm__ volatile("movb $1, (%1)" : "+x"(x) : "r"(page) : "memory");
		wrong += x != i + 0.375;
	}
	munmap(fresh, (size_t)ROUNDS * 8192);
	return wrong;
}

static long processes(void)
{
	long wrong = 0;

	for (int i = 0; i < 50; i++) {
		double x = i + 0.625;
		int status = 0;
		pid_t child;

		__asm__ volatile("" : "+x"(x));
		/* Not a call: the register must come through the fork itself. */
		__asm__ volatile("syscall" : "=a"(child), "+x"(x) : "a"(SYS_fork) : "rcx", "r11", "memory");
		if (child == 0) {
			int lost = x != i + 0.625;

			x = -1;
			__asm__ volatile("" : "+x"(x));
			_exit(lost);
		}
		waitpid(child, &status, 0);
		__asm__ volatile("" : "+x"(x));
		wrong += status != 0 || x != i + 0.625;
	}
	return wrong;
}

/* What a debugger reads is what the program has, and what it writes is what the program gets. */
static long debugger(void)
{
	struct user_fpregs_struct registers;
	struct iovec vector = { &registers, sizeof(registers) };
	double seen, put = 42.5;
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		register double x __asm__("xmm7");
		pid_t self = getpid();

		ptrace(PTRACE_TRACEME, 0, 0, 0);
		x = 1.75;
		__asm__ volatile("syscall" : "+x"(x) : "a"(SYS_tkill), "D"(self), "S"(SIGSTOP) : "rcx", "r11", "memory");
		_exit(x == put ? 0 : 1);
	}
	waitpid(child, &status, 0);
	if (ptrace(PTRACE_GETREGSET, child, NT_PRFPREG, &vector) < 0)
		return 100;
	memcpy(&seen, &registers.xmm_space[7 * 4], sizeof(seen));
	memcpy(&registers.xmm_space[7 * 4], &put, sizeof(put));
	if (ptrace(PTRACE_SETREGSET, child, NT_PRFPREG, &vector) < 0)
		return 200;
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	return (seen != 1.75) + (status != 0) * 10;
}

int main(void)
{
	static const struct {
		const char *name;
		long (*check)(void);
	} checks[] = { { "threads", threads },     { "signals", signals },   { "faults", faults },
		       { "processes", processes }, { "debugger", debugger } };
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1024 };
	int stream = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (connect(stream, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 1;
	dprintf(stream, "hello\n");
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		dprintf(stream, "%s wrong %ld\n", checks[i].name, checks[i].check());
	dprintf(stream, "end\n");
	pause();
	return 0;
}
