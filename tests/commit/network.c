/* SPDX-License-Identifier: MIT */
/* See commit.h. The relay is a process of its own; it and the test share a word or two of memory.
 */
#include "tests/commit/commit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS 8

struct pair {
	int fd[2]; /* of the client, of the receiver */
	int turn, bytes, from;
	bool silent;
};

static struct shared {
	volatile bool struck, healed;
} * shared;

static const struct plan *plan;
static struct pair pairs[PAIRS];
static int n_pairs, port;

static int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	close(fd);
	return -1;
}

static void take(int listener)
{
	struct pair *p = &pairs[n_pairs];
	bool cut = shared->struck && plan->dead && !shared->healed;

	if (n_pairs == PAIRS)
		_exit(1);
	*p = (struct pair){.fd = {accept(listener, NULL, NULL), -1}, .turn = -1, .from = -1};
	p->silent = cut && plan->fault == SILENT;
	if (!p->silent && !cut)
		p->fd[1] = dial();
	if (!p->silent && p->fd[1] < 0) {
		close(p->fd[0]);
		return;
	}
	n_pairs++;
}

static void cut(struct pair *p)
{
	for (int i = 0; i < 2; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	p->fd[0] = p->fd[1] = -1;
}

/* Bytes that may pass before the fault; -1: as many as there are. */
static int allowed(struct pair *p, int from)
{
	int turn = p->turn + (p->from != from), done = p->from == from ? p->bytes : 0;

	if (p != pairs || shared->struck)
		return -1;
	if (turn > plan->turn)
		return 0;
	return turn == plan->turn ? plan->bytes - done : -1;
}

static void pass(struct pair *p, int from)
{
	char buf[4096];
	int limit = allowed(p, from);
	ssize_t n;

	if (!limit) {
		shared->struck = true;
		p->silent = plan->fault == SILENT;
		if (plan->fault == CUT)
			cut(p);
		return;
	}
	n = recv(p->fd[from], buf, limit > 0 && limit < 4096 ? (size_t)limit : 4096, 0);
	if (n <= 0 || send(p->fd[!from], buf, (size_t)n, MSG_NOSIGNAL) != n) {
		cut(p);
		return;
	}
	if (p->from != from) {
		p->from = from;
		p->turn++;
		p->bytes = 0;
	}
	p->bytes += (int)n;
}

static _Noreturn void relay(int listener)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct pollfd p[1 + 2 * PAIRS] = {{listener, POLLIN, 0}};

		for (int i = 0; i < 2 * n_pairs; i++)
			p[1 + i] = (struct pollfd){
				pairs[i / 2].silent ? -1 : pairs[i / 2].fd[i % 2], POLLIN, 0};
		poll(p, 1 + 2 * (nfds_t)n_pairs, -1);
		for (int i = 0; i < 2 * n_pairs; i++)
			if (p[1 + i].revents && pairs[i / 2].fd[i % 2] >= 0 && !pairs[i / 2].silent)
				pass(&pairs[i / 2], i % 2);
		if (p[0].revents)
			take(listener);
	}
}

pid_t network_start(struct world *w, const struct plan *what)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	pid_t pid;

	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || bind(listener, (struct sockaddr *)&a, sizeof(a)) ||
		listen(listener, 8) || getsockname(listener, (struct sockaddr *)&a, &size))
		die("relay");
	shared->struck = shared->healed = false;
	plan = what;
	n_pairs = 0;
	port = atoi(strrchr(w->to, ':') + 1);
	snprintf(w->to, sizeof(w->to), "tcp://127.0.0.1:%d", ntohs(a.sin_port));
	pid = fork();
	if (!pid)
		relay(listener);
	close(listener);
	return pid;
}

bool network_struck(void)
{
	return shared->struck;
}

void network_heal(void)
{
	if (shared)
		shared->healed = true;
}
