/* SPDX-License-Identifier: MIT */
/* See pager.h. Everything that comes is checked like the rest of a stream. */
#include "core/restore/pager.h"
#include "core/base/crc32c.h"
#include "core/restore/owners.h"
#include "core/restore/pad.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK     65536u              /* what a request brings, about */
#define ASKED_MAX 1024u               /* requests that are not answered yet */
#define OWNED_MAX (TF_EXTENT_MAX / 4) /* words of one extent, at most */

struct paging {
	struct tf_pad *p;
	struct tf_pager *g;
	uint32_t count, chain; /* of all extents so far */
	uint64_t left;         /* bytes that may come */
	uint8_t *bytes;        /* TF_EXTENT_MAX */
	uint64_t *owned;       /* words that hold ids of lock holders, of the next extent */
	uint32_t n_owned;
	bool used;                 /* that extent has come */
	uint64_t asked[ASKED_MAX]; /* blocks */
	uint32_t n_asked;
	bool over;
};

static int hostile(struct paging *g, const char *what, uint64_t where)
{
	return tf_fail(&g->p->err, TELEFORK_E_IMAGE, "memory that comes later: %s at %llx", what,
		(unsigned long long)where);
}

/* --- requests --- */

/* Others that wait in the same block are served with it. Where too many wait it comes in its turn.
 */
static void ask(void *ctx, uint64_t address)
{
	struct paging *g = ctx;
	struct tf_want w = {.address = address};

	for (uint32_t i = 0; i < g->n_asked; i++)
		if (g->asked[i] == address / BLOCK)
			return;
	if (g->n_asked == ASKED_MAX)
		return;
	memcpy(w.magic, TF_WANT_MAGIC, sizeof(w.magic));
	if (tf_io_write(&g->p->io, &w, sizeof(w), &g->p->err))
		return; /* the connection is gone: reading tells that, too */
	g->asked[g->n_asked++] = address / BLOCK;
	g->g->asked++;
}

static void answered(struct paging *g, uint64_t at, uint64_t n)
{
	for (uint32_t i = 0; i < g->n_asked;)
		if (g->asked[i] >= at / BLOCK && g->asked[i] <= (at + n - 1) / BLOCK)
			g->asked[i] = g->asked[--g->n_asked];
		else
			i++;
}

static void hold(void *ctx, int uffd)
{
	struct paging *g = ctx;

	tf_guard_add(&g->g->guard, uffd);
}

/* --- what comes --- */

static uint32_t new_id(const struct paging *g, uint32_t old)
{
	const struct tf_image *img = &g->p->image;

	for (uint32_t i = 0; i < img->n_threads; i++)
		if ((uint32_t)img->threads[i].tid == old)
			return (uint32_t)g->p->landing.tids[i];
	return old;
}

/* Holders of locks have other ids here. */
static void change_owners(struct paging *g, uint64_t at, uint64_t n)
{
	for (uint32_t i = 0; i < g->n_owned; i++) {
		uint8_t *word = g->bytes + (g->owned[i] - at);
		uint32_t value;

		if (g->owned[i] < at || g->owned[i] - at > n - sizeof(value))
			continue;
		memcpy(&value, word, sizeof(value));
		value = (value & ~TF_OWNER_TID) | new_id(g, value & TF_OWNER_TID);
		memcpy(word, &value, sizeof(value));
	}
	g->used = true;
}

static int take_owned(struct paging *g, uint32_t size)
{
	uint32_t n = size / sizeof(*g->owned);

	if (g->used)
		g->n_owned = 0;
	g->used = false;
	if (size % sizeof(*g->owned) || n > OWNED_MAX - g->n_owned)
		return hostile(g, "a list of words", size);
	memcpy(g->owned + g->n_owned, g->bytes, size);
	g->n_owned += n;
	return 0;
}

static int put(struct paging *g, uint64_t at, const void *bytes, uint64_t n)
{
	if (n > g->left)
		return hostile(g, "more bytes than there can be", at);
	g->left -= n;
	g->g->bytes += n;
	answered(g, at, n);
	return tf_spaces_put(&g->g->spaces, at, bytes, n, &g->p->err);
}

static int take_zeros(struct paging *g, uint32_t size)
{
	uint64_t mask = g->p->image.source.page_size - 1;
	int rc = size % sizeof(struct tf_run) ? hostile(g, "a list of zeros", size) : 0;

	for (uint32_t at = 0; at < size && !rc; at += sizeof(struct tf_run)) {
		struct tf_run r;

		memcpy(&r, g->bytes + at, sizeof(r));
		rc = r.start >= r.end || (r.start | r.end) & mask
			     ? hostile(g, "zeros", r.start)
			     : put(g, r.start, NULL, r.end - r.start);
	}
	return rc;
}

static int take_bytes(struct paging *g, const struct tf_extent *x)
{
	uint64_t room, at = tf_image_address(&g->p->image, x->offset, &room);

	if (at == UINT64_MAX || x->size > room ||
		(at | x->size) & (g->p->image.source.page_size - 1))
		return hostile(g, "an extent that is no memory's", x->offset);
	change_owners(g, at, x->size);
	return put(g, at, g->bytes, x->size);
}

static int take_extent(struct paging *g)
{
	struct tf_pad *p = g->p;
	struct tf_extent x;
	int rc = tf_io_read(&p->io, &x, sizeof(x), &p->err);

	if (rc)
		return rc;
	if (x.offset == TF_TRAILER_OFFSET) {
		g->over = x.size == g->count && x.crc == g->chain;
		return g->over ? 0
			       : tf_fail(&p->err, TELEFORK_E_CHECKSUM,
					 "memory that comes later: an extent is missing");
	}
	if (!x.size || x.size > TF_EXTENT_MAX)
		return hostile(g, "an extent's size", x.offset);
	rc = tf_io_read(&p->io, g->bytes, x.size, &p->err);
	if (rc)
		return rc;
	if (x.crc != tf_extent_crc(x.offset, x.size, g->bytes))
		return tf_fail(&p->err, TELEFORK_E_CHECKSUM,
			"the extent at byte %llu arrived damaged", (unsigned long long)x.offset);
	g->chain = tf_chain_crc(g->chain, x.crc);
	g->count++;
	return x.offset == TF_ZEROS_OFFSET   ? take_zeros(g, x.size)
	       : x.offset == TF_OWNED_OFFSET ? take_owned(g, x.size)
					     : take_bytes(g, &x);
}

/* --- the loop --- */

/* Waits for the sender, or for a space that has to tell something. */
static int step(struct paging *g)
{
	struct tf_spaces *s = &g->g->spaces;
	struct tf_pad *p = g->p;
	size_t n = s->n;
	struct pollfd *fd = calloc(n + 1, sizeof(*fd));
	int rc = 0, got;

	if (!fd)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		fd[i] = (struct pollfd){.fd = s->v[i].uffd, .events = POLLIN};
	fd[n] = (struct pollfd){.fd = p->io.fd, .events = POLLIN};
	got = poll(fd, (nfds_t)n + 1, p->io.idle_ms);
	if (!got)
		rc = tf_fail(&p->err, TELEFORK_E_TIMEOUT, "the sender moved no byte for %d ms",
			p->io.idle_ms);
	for (size_t i = 0; i < n && got > 0 && !rc; i++)
		if (fd[i].revents)
			rc = tf_spaces_hear(s, i, &p->err);
	if (!rc && got > 0 && fd[n].revents)
		rc = take_extent(g);
	free(fd);
	return rc ? rc : p->err.code; /* of a request */
}

static int page_all(struct paging *g)
{
	struct tf_pad *p = g->p;
	int rc = 0;

	while (!rc && !g->over && tf_spaces_live(&g->g->spaces))
		rc = step(g);
	if (!rc && g->over && tf_spaces_live(&g->g->spaces) && tf_spaces_missing(&g->g->spaces))
		rc = tf_fail(&p->err, TELEFORK_E_IMAGE,
			"memory that comes later: %llu bytes of it did not come",
			(unsigned long long)tf_spaces_missing(&g->g->spaces));
	p->result.memory += g->g->bytes;
	return rc;
}

int tf_pager_run(struct tf_pad *p)
{
	struct paging *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory");
	*g = (struct paging){.p = p, .g = &p->pager, .left = p->to_come};
	g->bytes = malloc(TF_EXTENT_MAX);
	g->owned = malloc(OWNED_MAX * sizeof(*g->owned));
	rc = g->bytes && g->owned
		     ? tf_spaces_begin(&p->pager.spaces, p->pager.uffd, p->image.later,
			       p->image.n_later, p->facts.page_size, &p->err)
		     : tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for what comes later");
	p->pager.spaces.wanted = ask;
	p->pager.spaces.forked = hold;
	p->pager.spaces.ctx = g;
	if (!rc) {
		p->pager.uffd = -1;
		rc = page_all(g);
	}
	free(g->bytes);
	free(g->owned);
	free(g);
	return rc;
}

static int await(struct tf_pad *p, uint64_t deadline_ns)
{
	struct pollfd fd = {.fd = p->control, .events = POLLIN};

	for (;;) {
		uint64_t now = tf_now_ns(),
			 ms = now < deadline_ns ? (deadline_ns - now) / 1000000 : 0;
		int n = poll(&fd, 1, ms < INT32_MAX ? (int)ms : INT32_MAX);

		if (n > 0)
			return 0;
		if (!n && tf_now_ns() >= deadline_ns)
			return tf_fail(&p->err, TELEFORK_E_TIMEOUT,
				"the first part of its memory did not come in time");
		if (n < 0 && errno != EINTR)
			return tf_fail_errno(&p->err, TELEFORK_E_SYSTEM, errno, "poll");
	}
}

int tf_pager_take(struct tf_pad *p, uint64_t deadline_ns)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct tf_report r;
	struct iovec iov = {&r, sizeof(r)};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int rc = await(p, deadline_ns);

	if (rc)
		return rc;
	if (recvmsg(p->control, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL) != sizeof(r))
		return tf_fail(&p->err, TELEFORK_E_RESTORE,
			"the new process ended while it was being restored");
	c = CMSG_FIRSTHDR(&m);
	if (r.tag == 'e')
		return tf_pad_explain(p, &r);
	if (r.tag != 'u' || !c || c->cmsg_type != SCM_RIGHTS)
		return tf_fail(&p->err, TELEFORK_E_RESTORE, "the new process said something else");
	memcpy(&p->pager.uffd, CMSG_DATA(c), sizeof(int));
	return tf_guard_start(&p->pager.guard, p->child, p->pager.uffd, &p->err);
}

void tf_pager_done(struct tf_pager *g)
{
	tf_spaces_done(&g->spaces);
	if (g->uffd >= 0)
		close(g->uffd);
	g->uffd = -1;
	tf_guard_end(&g->guard);
}
