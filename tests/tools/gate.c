/* SPDX-License-Identifier: MIT */
/*
 * gate PORT BYTES: stands between a sender and the receiver at 127.0.0.1:PORT. Prints its own port
 * and passes everything on, but of each connection's bytes towards the receiver the first BYTES
 * only: then it prints "held" and keeps the connection as it is, until SIGTERM ends it.
 *
 * gate PORT answer N: after the receiver's Nth answer nothing goes there any more until the
 * receiver asks for an address of memory: then it prints "asked", and all goes on.
 *
 * gate PORT flip N: a bit of the Nth byte towards the receiver is another one.
 *
 * gate PORT old: the receiver does not know of rounds: what it is told is an errand that there is
 * not.
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

#include "core/channel/channel.h"
#include "core/image/stream.h"

static struct sockaddr_in at = {.sin_family = AF_INET};

static int fail(const char *what)
{
	perror(what);
	return 1;
}

/* What went by from the receiver; words may be cut by the reads. */
struct heard {
	char tail[7];
	unsigned answers, wants;
};

static void hear(struct heard *h, const char *bytes, size_t n)
{
	static char all[sizeof(h->tail) + 65536];

	memcpy(all, h->tail, sizeof(h->tail));
	memcpy(all + sizeof(h->tail), bytes, n);
	for (size_t i = 0; i + 8 <= n + sizeof(h->tail); i++) {
		h->answers += !memcmp(all + i, TF_REPLY_MAGIC, 8);
		h->wants += !memcmp(all + i, TF_WANT_MAGIC, 8);
	}
	memcpy(h->tail, all + n, sizeof(h->tail));
}

static size_t flip = SIZE_MAX; /* bytes towards the receiver until then */

/* Passes at most n bytes, h: to the sender; how many, or -1 at the end. */
static ssize_t pass(int from, int to, size_t n, struct heard *h)
{
	char bytes[65536];
	ssize_t got = recv(from, bytes, n < sizeof(bytes) ? n : sizeof(bytes), 0);

	if (got > 0 && h)
		hear(h, bytes, (size_t)got);
	if (got > 0 && !h) {
		if (flip < (size_t)got)
			bytes[flip] ^= 0x10;
		flip -= (size_t)got; /* once */
	}
	for (ssize_t done = 0; done < got;) {
		ssize_t part = send(to, bytes + done, (size_t)(got - done), MSG_NOSIGNAL);

		if (part < 0)
			return -1;
		done += part;
	}
	return got > 0 ? got : -1;
}

static void say(const char *word)
{
	puts(word);
	fflush(stdout);
}

/* The errand stands behind 16 bytes of greeting. */
static void pass_greeting(int sender, int receiver)
{
	struct {
		char greeting[16];
		uint32_t errand;
	} first;

	if (recv(sender, &first, sizeof(first), MSG_WAITALL) != sizeof(first))
		exit(0);
	if (first.errand == TF_ERRAND_ROUNDS)
		first.errand = TF_ERRANDS;
	if (send(receiver, &first, sizeof(first), MSG_NOSIGNAL) != sizeof(first))
		exit(0);
}

/* left: bytes that pass; answers: after so many none do, until it asks (0: always). */
static void connection(int sender, size_t left, unsigned answers, bool old)
{
	int receiver = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd fd[2] = {{sender, POLLIN, 0}, {receiver, POLLIN, 0}};
	struct heard h = {0};
	bool asked = !answers;

	if (connect(receiver, (struct sockaddr *)&at, sizeof(at)))
		exit(fail("connect"));
	if (old)
		pass_greeting(sender, receiver);
	while (poll(fd, 2, -1) >= 0) {
		ssize_t n = 0;

		if (fd[1].revents && pass(receiver, sender, SIZE_MAX, &h) < 0)
			exit(0);
		if (!asked && h.wants) {
			asked = true;
			say("asked");
		}
		if (fd[0].revents && (asked || h.answers < answers))
			n = pass(sender, receiver, left, NULL);
		if (n < 0)
			exit(0);
		left -= (size_t)n;
		if (!left && fd[0].fd >= 0)
			say("held");
		fd[0].fd = left && (asked || h.answers < answers) ? sender : -1;
	}
	exit(fail("poll"));
}

int main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(own);
	bool old = argc == 3 && !strcmp(argv[2], "old");
	bool flips = argc == 4 && !strcmp(argv[2], "flip");

	if (argc != 3 && !flips && !(argc == 4 && !strcmp(argv[2], "answer")))
		return fprintf(stderr, "usage: gate PORT BYTES | answer N | flip N | old\n"), 2;
	if (flips)
		flip = strtoull(argv[3], NULL, 0);
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
			connection(fd, argc == 3 && !old ? strtoull(argv[2], NULL, 0) : SIZE_MAX,
				argc == 3 || flips ? 0 : (unsigned)atoi(argv[3]), old);
		}
		close(fd);
	}
}
