/* SPDX-License-Identifier: MIT */
/* See pump.h. One direction each way, with a buffer that is filled when it is empty. */
#include "core/cmd/pump.h"
#include "core/cmd/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct flow {
	int from, to; /* -1: ended */
	bool socket;  /* to is one, else from is */
	size_t at, n; /* of buf, not yet passed on */
	char buf[65536];
};

/* Both sides are told: no more comes, and no more is wanted. */
static void end_flow(struct flow *f)
{
	if (f->socket) {
		shutdown(f->to, SHUT_WR);
		close(f->from);
	} else {
		shutdown(f->from, SHUT_RD);
		close(f->to);
	}
	f->from = f->to = -1;
	f->at = f->n = 0;
}

/* A pipe that poll() calls writable takes so much without blocking. */
static ssize_t write_some(const struct flow *f)
{
	size_t n = f->n - f->at;

	if (f->socket)
		return send(f->to, f->buf + f->at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	return write(f->to, f->buf + f->at, n < PIPE_BUF ? n : PIPE_BUF);
}

static bool again(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void step(struct flow *f)
{
	ssize_t n;

	if (f->at < f->n) {
		n = write_some(f);
		if (n > 0)
			f->at += (size_t)n;
		else if (!again(n))
			end_flow(f);
		return;
	}
	n = read(f->from, f->buf, sizeof(f->buf));
	f->at = 0;
	f->n = n > 0 ? (size_t)n : 0;
	if (n <= 0 && !again(n))
		end_flow(f);
}

/* What poll() is to wait for. */
static struct pollfd next_of(const struct flow *f)
{
	bool full = f->at < f->n;

	return (struct pollfd){full ? f->to : f->from, full ? POLLOUT : POLLIN, 0};
}

/* Who has nothing more to say may still listen. */
static void pass_on(struct flow *in, struct flow *out)
{
	while (out->from >= 0 || in->from >= 0) {
		struct pollfd p[] = {next_of(in), next_of(out)};

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			step(in);
		if (p[1].revents)
			step(out);
	}
}

int tf_pump_stdio(struct tf_err *e)
{
	static struct flow in, out;
	int pair[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), status = 0;
	pid_t pid;

	if (null < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "standard input");
	pid = fork();
	if (pid < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "fork");
	close(pair[pid ? 1 : 0]);
	if (!pid) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
		return pair[1];
	}
	in = (struct flow){.from = STDIN_FILENO, .to = pair[0], .socket = true};
	out = (struct flow){.from = pair[0], .to = STDOUT_FILENO};
	pass_on(&in, &out);
	close(pair[0]);
	close(STDOUT_FILENO);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(tf_exit_status(status));
}
