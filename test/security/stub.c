/*
 * A hostile kernel that has a stub process of the real kernel's making: run in a jail in the kernel's place, with the
 * stub's program as its second drive (/drive1). It starts the stub as the real kernel does (arch/um/os-Linux/skas/process.c),
 * then lets it make system calls of the host's, all there are, and says the numbers of those that were made.
 * Its last argument is what is done: "calls", or "flags" for an mmap of a kind that a stub does not need.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define STUB 0x7f9000000000UL
#define CALLS_MAX 480

/* struct stub_init_data of the kernel's stub-data.h */
static struct {
	int seccomp;
	unsigned long stub_start;
	int code_fd;
	unsigned long code_offset;
	int data_fd;
	unsigned long data_offset;
	unsigned long signal_handler, signal_restorer;
} init = { .stub_start = STUB, .signal_handler = STUB, .data_offset = PAGE };

static int program, ends[2];

static void must(long result, const char *what)
{
	if (result >= 0)
		return;
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static int start_stub(void *unused)
{
	(void)unused;
	dup2(ends[0], 0);
	syscall(SYS_execveat, program, "", (char *[]){ "stub", NULL }, NULL, AT_EMPTY_PATH);
	_exit(5);
}

static int memory(const char *from)
{
	static char bytes[64 * 1024];
	int memfd = memfd_create("stub", 0), fd = from ? open(from, O_RDONLY) : -1;
	ssize_t length = from ? read(fd, bytes, sizeof(bytes)) : (ssize_t)(8 * PAGE);

	must(length, "read the stub");
	must(write(memfd, bytes, (size_t)length), "write");
	return memfd;
}

/* Whether the stub's call was made: it comes back to the trap behind it. */
static int is_made(pid_t stub, const struct user_regs_struct *regs)
{
	int status;

	must(ptrace(PTRACE_SETREGS, stub, 0, regs), "set registers");
	must(ptrace(PTRACE_CONT, stub, 0, 0), "continue");
	must(wait4(stub, &status, __WALL, NULL), "wait");
	if (!WIFSTOPPED(status)) {
		printf("the stub ended at call %llu: %x\n", regs->rax, status);
		exit(1);
	}
	return WSTOPSIG(status) != SIGSYS;
}

int main(int argc, char **argv)
{
	static const unsigned char code[] = { 0x0f, 0x05, 0xcc }; /* syscall; int3 */
	static char stack[16 * PAGE];
	struct user_regs_struct regs;
	int status;

	setvbuf(stdout, NULL, _IONBF, 0);
	program = memory("/drive1");
	init.code_fd = init.data_fd = memory(NULL);
	must(pwrite(init.code_fd, code, sizeof(code), 0), "write code");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
	must(write(ends[1], &init, sizeof(init)), "tell the stub");
	pid_t stub = clone(start_stub, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	must(stub, "clone");
	must(wait4(stub, &status, __WALL, NULL), "wait");
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP) {
		printf("the stub did not stop: %x\n", status);
		return 1;
	}
	must(ptrace(PTRACE_GETREGS, stub, 0, &regs), "get registers");
	regs.rip = STUB;
	regs.orig_rax = (unsigned long long)-1;
	regs.rdi = regs.rsi = regs.rdx = regs.r10 = regs.r8 = regs.r9 = 0;
	if (!strcmp(argv[argc - 1], "flags")) {
		regs.rax = SYS_mmap;
		regs.rsi = PAGE;
		regs.r8 = (unsigned long long)init.data_fd;
		for (unsigned flags = 0; flags < 64; flags++) {
			regs.r10 = flags;
			/* Where it may, it maps. */
			regs.rdi = flags & MAP_FIXED ? STUB - 16 * PAGE : 0;
			if (is_made(stub, &regs))
				printf("%x ", flags);
		}
		puts("done");
		return 0;
	}
	for (unsigned call = 0; call < CALLS_MAX; call++) {
		regs.rax = call;
		/* As a stub makes it. */
		regs.r10 = call == SYS_mmap ? MAP_SHARED | MAP_FIXED : 0;
		if (is_made(stub, &regs))
			printf("%u ", call);
	}
	puts("done");
	return 0;
}
