/*
 * A guest program for the monitor's tests, run as PID 1. It connects to the host's vsock port given as its first
 * argument (1024 without one), says "hello\n", then obeys commands, one a line:
 *
 *   echo           sends everything back until the end, then closes
 *   send BYTES     sends so many bytes of a pattern, then half-closes
 *   take           takes everything until the end, answers "BYTES SUM\n"
 *   read DEVICE    answers with the first 16 bytes of a block device
 *   serve PORT     listens on a port in the guest and answers each connection with "served\n"
 *   open NUMBER    opens so many further connections to the same port, answers "opened N\n"
 *   spin           burns CPU for ever
 *   fork NUMBER    makes so many processes that burn CPU for ever, answers "forked\n"
 *   churn          makes one process after the other for ever, each living for a moment
 *   poweroff, exit
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[64 * 1024];

static int connect_host(unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void write_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, bytes, length);

		if (written <= 0)
			return;
		bytes += written;
		length -= (size_t)written;
	}
}

static void serve(int stream, unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port };
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

	bind(listener, (struct sockaddr *)&address, sizeof(address));
	listen(listener, 64);
	write_all(stream, "serving\n", 8);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		write_all(fd, "served\n", 7);
		close(fd);
	}
}

static void take(int stream)
{
	unsigned long total = 0, sum = 0;
	ssize_t count;

	while ((count = read(stream, buffer, sizeof(buffer))) > 0) {
		for (ssize_t i = 0; i < count; i++)
			sum += (unsigned char)buffer[i];
		total += (unsigned long)count;
	}
	int length = snprintf(buffer, sizeof(buffer), "%lu %lu\n", total, sum);
	write_all(stream, buffer, (size_t)length);
	close(stream);
}

static void send_bytes(int stream, unsigned long bytes)
{
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (char)(i % 251);
	while (bytes > 0) {
		size_t length = bytes < sizeof(buffer) ? bytes : sizeof(buffer);

		write_all(stream, buffer, length);
		bytes -= length;
	}
	shutdown(stream, SHUT_WR);
}

static void read_device(int stream, const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t count = fd < 0 ? -1 : read(fd, buffer, 16);

	if (count < 0)
		write_all(stream, "cannot read it\n\n", 16);
	else
		write_all(stream, buffer, 16);
	close(fd);
}

static void open_many(int stream, unsigned port, int number)
{
	int opened = 0;

	while (opened < number && connect_host(port) >= 0)
		opened++;
	int length = snprintf(buffer, sizeof(buffer), "opened %d\n", opened);
	write_all(stream, buffer, (size_t)length);
}

static void obey(int stream, unsigned port, const char *command)
{
	static char echoed[4096];
	ssize_t count;

	if (!strcmp(command, "echo")) {
		while ((count = read(stream, echoed, sizeof(echoed))) > 0)
			write_all(stream, echoed, (size_t)count);
		close(stream);
	} else if (!strncmp(command, "send ", 5)) {
		send_bytes(stream, strtoul(command + 5, NULL, 10));
	} else if (!strcmp(command, "take")) {
		take(stream);
	} else if (!strncmp(command, "read ", 5)) {
		read_device(stream, command + 5);
	} else if (!strncmp(command, "serve ", 6)) {
		serve(stream, (unsigned)atoi(command + 6));
	} else if (!strncmp(command, "open ", 5)) {
		open_many(stream, port, atoi(command + 5));
	} else if (!strcmp(command, "spin")) {
		for (volatile unsigned long i = 0;; i++)
			;
	} else if (!strncmp(command, "fork ", 5)) {
		for (int i = atoi(command + 5); i > 0; i--)
			if (fork() == 0)
				obey(stream, port, "spin");
		write_all(stream, "forked\n", 7);
	} else if (!strcmp(command, "churn")) {
		for (;;) {
			if (fork() == 0)
				_exit(0);
			wait(NULL);
		}
	} else if (!strcmp(command, "poweroff")) {
		reboot(RB_POWER_OFF);
	} else if (!strcmp(command, "exit")) {
		_exit(3);
	}
}

int main(int argc, char **argv)
{
	unsigned port = argc > 1 ? (unsigned)atoi(argv[1]) : 1024;
	char command[128];

	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 4096, 4096 });
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	printf("guest up\n");
	fflush(stdout);
	int stream = connect_host(port);

	write_all(stream, "hello\n", 6);
	for (;;) {
		size_t length = 0;

		while (length < sizeof(command) - 1 && read(stream, command + length, 1) == 1 && command[length] != '\n')
			length++;
		command[length] = 0;
		if (length == 0)
			pause();
		obey(stream, port, command);
	}
}
