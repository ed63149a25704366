/* SPDX-License-Identifier: MIT */
/*
 * See forward.h. The process between: bytes go from the sender to the receiver here and to the
 * next; answers of both go back. One of the two that breaks does not keep the bytes from the other.
 */
#include "core/cmd/forward.h"
#include "core/base/cleanup.h"
#include "core/base/host.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SENDER, HERE, NEXT, SIDES };

struct forward {
	struct tf_io io[SIDES]; /* fd -1: not there (any more) */
	struct tf_chain chain;  /* behind this receiver: the next one first */
	uint32_t index;         /* of this receiver */
	bool *told;             /* of each from index on: its answer has gone back */
	uint32_t n, left;       /* of those: how many, and how many have not answered */
	char buf[1 << 18];
};

static void tell(struct forward *f, uint32_t index, const struct tf_reply *r, const char *message)
{
	if (index < f->index || index - f->index >= f->n || f->told[index - f->index])
		return;
	f->told[index - f->index] = true;
	f->left--;
	tf_chain_reply_write(&f->io[SENDER], index, r, message);
}

static void failed(void *ctx, uint32_t index, const struct tf_err *why)
{
	tell(ctx, index, &(struct tf_reply){.code = why->code}, why->text);
}

static void close_side(struct forward *f, int side)
{
	if (f->io[side].fd >= 0)
		close(f->io[side].fd);
	f->io[side].fd = -1;
}

/* Nothing more is heard from there. */
static void lose(struct forward *f, int side)
{
	struct tf_err why = {0};
	uint32_t from = side == HERE ? 0 : 1, to = side == HERE ? 1 : f->n;

	close_side(f, side);
	if (side == HERE)
		tf_fail(&why, TELEFORK_E_CLOSED, "the receiver's session ended without an answer");
	else
		tf_fail(&why, TELEFORK_E_CLOSED,
			"the link to %.100s broke before an answer came: whether the copy runs there "
			"is not known",
			tf_chain_uri(&f->chain, 0));
	for (uint32_t i = from; i < to; i++)
		failed(f, f->index + i, &why);
}

/* Bytes for both. */
static bool pass_on(struct forward *f)
{
	ssize_t n = recv(f->io[SENDER].fd, f->buf, sizeof(f->buf), MSG_DONTWAIT);
	struct tf_err quiet = {0};

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	for (int side = HERE; side <= NEXT && n > 0; side++)
		if (f->io[side].fd >= 0 && tf_io_write(&f->io[side], f->buf, (size_t)n, &quiet))
			shutdown(f->io[side].fd, SHUT_WR); /* it may have said why */
	return n > 0;
}

static void hear_here(struct forward *f)
{
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_err quiet = {0};
	struct tf_reply r;

	if (tf_reply_read(&f->io[HERE], &r, message, &quiet)) {
		lose(f, HERE);
		return;
	}
	tell(f, f->index, &r, message);
	/* The receiver closes its side when nothing more is wanted. */
}

static void hear_next(struct forward *f)
{
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_err quiet = {0};
	struct tf_reply r;
	uint32_t index;

	if (tf_chain_reply_read(&f->io[NEXT], &index, &r, message, &quiet))
		lose(f, NEXT);
	else
		tell(f, index, &r, message);
}

static _Noreturn void run(struct forward *f)
{
	while (f->left || f->io[HERE].fd >= 0) {
		struct pollfd p[SIDES];
		int n;

		for (int i = 0; i < SIDES; i++)
			p[i] = (struct pollfd){.fd = f->io[i].fd, .events = POLLIN};
		n = poll(p, SIDES, f->io[SENDER].idle_ms);
		if (!n || (n < 0 && errno != EINTR))
			break;
		if (n < 0)
			continue;
		if (p[HERE].revents)
			hear_here(f);
		if (p[NEXT].revents)
			hear_next(f);
		if (p[SENDER].revents && !pass_on(f))
			break;
	}
	_exit(0);
}

static int begin(
	struct forward *f, int fd, const struct telefork_options *o, int here, struct tf_err *e)
{
	struct tf_err why = {0};
	int next;

	tf_io_init(&f->io[SENDER], fd, o);
	tf_io_init(&f->io[HERE], here, o);
	f->n = f->left = f->chain.head.n;
	f->index = f->chain.head.index;
	f->told = calloc(f->n, sizeof(*f->told));
	if (!f->told)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for %u receivers", f->n);
	tf_chain_step(&f->chain);
	next = tf_chain_dial(&f->chain, o, failed, f, &why);
	f->io[NEXT].fd = -1;
	if (next >= 0)
		tf_io_init(&f->io[NEXT], next, o);
	return 0;
}

int tf_forward_begin(
	int fd, const struct telefork_options *options, struct tf_chain *ret, struct tf_err *e)
{
	struct forward *f = calloc(1, sizeof(*f));
	int pair[2] = {-1, -1}, keep[SIDES];
	struct tf_io io;
	pid_t pid;
	int rc;

	if (!f)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for a chain");
	tf_io_init(&io, fd, options);
	rc = tf_chain_read(&io, &f->chain, e);
	*ret = f->chain;
	if (!rc && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		rc = tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "socketpair");
	pid = rc ? -1 : fork();
	if (!pid) {
		close(pair[0]);
		keep[SENDER] = fd;
		keep[HERE] = pair[1];
		keep[NEXT] = 2;
		tf_host_close_all(keep, SIDES);
		if (!begin(f, fd, options, pair[1], e))
			run(f);
		_exit(1);
	}
	if (!rc && pid < 0)
		rc = tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "fork");
	tf_closep(&pair[1]);
	if (!rc)
		close(fd);
	free(f->chain.uris);
	ret->uris = NULL;
	free(f);
	return rc ? rc : pair[0];
}
