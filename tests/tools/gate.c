/* SPDX-License-Identifier: MIT */
/*
 * gate PORT BYTES: stands between a sender and the receiver at 127.0.0.1:PORT. Prints its own port
 * and passes everything on, but of each connection's bytes towards the receiver the first BYTES
 * only: then it prints "held" and keeps the connection as it is, until SIGTERM ends it.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in at = {.sin_family = AF_INET};

static int fail(const char *what)
{
	perror(what);
	return 1;
}

/* Passes at most n bytes; how many, or -1 at the end. */
static ssize_t pass(int from, int to, size_t n)
{
	char bytes[65536];
	ssize_t got = recv(from, bytes, n < sizeof(bytes) ? n : sizeof(bytes), 0);

	for (ssize_t done = 0; done < got;) {
		ssize_t part = send(to, bytes + done, (size_t)(got - done), MSG_NOSIGNAL);

		if (part < 0)
			return -1;
		done += part;
	}
	return got > 0 ? got : -1;
}

static void connection(int sender, size_t left)
{
	int receiver = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd fd[2] = {{sender, POLLIN, 0}, {receiver, POLLIN, 0}};

	if (connect(receiver, (struct sockaddr *)&at, sizeof(at)))
		exit(fail("connect"));
	for (;;) {
		ssize_t n = 0;

		if (poll(fd, 2, -1) < 0)
			exit(fail("poll"));
		if (fd[1].revents && pass(receiver, sender, SIZE_MAX) < 0)
			exit(0);
		if (fd[0].revents)
			n = pass(sender, receiver, left);
		if (n < 0)
			exit(0);
		left -= (size_t)n;
		if (!left && fd[0].fd >= 0) {
			puts("held");
			fflush(stdout);
			fd[0].fd = -1;
		}
	}
}

int main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(own);

	if (argc != 3)
		return fprintf(stderr, "usage: gate PORT BYTES\n"), 2;
	at.sin_port = htons((uint16_t)atoi(argv[1]));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	signal(SIGCHLD, SIG_IGN);
	if (bind(listener, (struct sockaddr *)&own, sizeof(own)) || listen(listener, 8) ||
		getsockname(listener, (struct sockaddr *)&own, &size))
		return fail("listen");
	printf("%d\n", ntohs(own.sin_port));
	fflush(stdout);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			return fail("accept");
		if (!fork()) {
			close(listener);
			connection(fd, strtoull(argv[2], NULL, 0));
		}
		close(fd);
	}
}
