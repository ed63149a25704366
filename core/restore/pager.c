/* SPDX-License-Identifier: MIT */
/* See pager.h. Everything that comes is checked like the rest of a stream. */
#include "core/restore/pager.h"
#include "core/base/crc32c.h"
#include "core/restore/owners.h"
#include "core/restore/pad_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASKED_MAX 1024u               /* requests that are not answered yet */
#define OWNED_MAX (TF_EXTENT_MAX / 4) /* words of one extent, at most */

#define IN_READ 262144u /* bytes at a time, so that nobody who asks waits for long */
#define IN_HOT  65536u
#define IN_SIZE (sizeof(struct tf_extent) + sizeof(uint32_t) + TF_EXTENT_MAX + IN_READ)

#define HOT_NS   10000000u /* after a request; the sender's is shorter */
#define TOLD     32768u    /* meanwhile it is told of so many bytes that they are in place */
#define AWAKE_NS 30000u    /* after a request: its answer may come at once */

struct paging {
	struct tf_pad *p;
	struct tf_pager *g;
	uint32_t count, chain; /* of all extents so far */
	uint64_t left;         /* bytes that may come */
	uint8_t *in;           /* IN_SIZE; what has come is at [at, end) */
	size_t at, end;
	uint64_t *owned; /* words that hold ids of lock holders, of the next extent */
	uint32_t n_owned;
	bool crc_instruction;      /* there is one, for checks */
	bool used;                 /* that extent has come */
	uint64_t asked[ASKED_MAX]; /* pages */
	uint32_t n_asked;
	uint64_t hot_ns, awake_ns;
	uint64_t taken, told; /* bytes of extents */
	struct pollfd *fd;    /* of each space, and of the sender */
	size_t n_fd;
	bool packed; /* what comes may be: a section (stream.h) */
	bool over;
};

static int hostile(struct paging *g, const char *what, uint64_t where)
{
	return tf_fail(&g->p->err, TELEFORK_E_IMAGE, "memory that comes later: %s at %llx", what,
		(unsigned long long)where);
}

/* --- requests --- */

static bool say(struct paging *g, const char *magic, uint64_t number)
{
	struct tf_want w = {.address = number};

	memcpy(w.magic, magic, sizeof(w.magic));
	/* If the connection is gone, reading tells that, too. */
	return !tf_io_write(&g->p->io, &w, sizeof(w), &g->p->err);
}

/* Where too many wait it comes in its turn. */
static void ask(void *ctx, uint64_t address)
{
	struct paging *g = ctx;
	uint64_t page = address & ~(uint64_t)(g->p->image.source.page_size - 1);

	for (uint32_t i = 0; i < g->n_asked; i++)
		if (g->asked[i] == page)
			return;
	if (g->n_asked == ASKED_MAX || !say(g, TF_WANT_MAGIC, address))
		return;
	g->asked[g->n_asked++] = page;
	g->g->asked++;
	g->awake_ns = tf_now_ns() + AWAKE_NS;
	g->hot_ns = tf_now_ns() + HOT_NS;
}

/* How far we are: the sender has little on the way while we ask. */
static void tell_taken(struct paging *g, uint64_t least)
{
	if (g->taken - g->told < least || !g->hot_ns)
		return;
	if (tf_now_ns() > g->hot_ns)
		g->hot_ns = 0;
	else if (say(g, TF_TAKEN_MAGIC, g->taken))
		g->told = g->taken;
}

static void answered(struct paging *g, uint64_t at, uint64_t n)
{
	for (uint32_t i = 0; i < g->n_asked;)
		if (g->asked[i] >= at && g->asked[i] < at + n)
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
static void change_owners(struct paging *g, uint64_t at, uint8_t *bytes, uint64_t n)
{
	for (uint32_t i = 0; i < g->n_owned; i++) {
		uint8_t *word = bytes + (g->owned[i] - at);
		uint32_t value;

		if (g->owned[i] < at || g->owned[i] - at > n - sizeof(value))
			continue;
		memcpy(&value, word, sizeof(value));
		value = (value & ~TF_OWNER_TID) | new_id(g, value & TF_OWNER_TID);
		memcpy(word, &value, sizeof(value));
	}
	g->used = true;
}

static int take_owned(struct paging *g, const uint8_t *bytes, uint32_t size)
{
	uint32_t n = size / sizeof(*g->owned);

	if (g->used)
		g->n_owned = 0;
	g->used = false;
	if (size % sizeof(*g->owned) || n > OWNED_MAX - g->n_owned)
		return hostile(g, "a list of words", size);
	memcpy(g->owned + g->n_owned, bytes, size);
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

static int drop(struct paging *g, uint64_t at, uint64_t n)
{
	if (n > g->left)
		return hostile(g, "more absent bytes than there can be", at);
	g->left -= n;
	answered(g, at, n);
	return tf_spaces_drop(&g->g->spaces, at, n, &g->p->err);
}

/* Pages that are zero, or (absent) that were nowhere. */
static int take_list(struct paging *g, const uint8_t *bytes, uint32_t size, bool absent)
{
	uint64_t mask = g->p->image.source.page_size - 1;
	int rc = size % sizeof(struct tf_run) ? hostile(g, "a list of pages", size) : 0;

	for (uint32_t at = 0; at < size && !rc; at += sizeof(struct tf_run)) {
		struct tf_run r;

		memcpy(&r, bytes + at, sizeof(r));
		if (r.start >= r.end || (r.start | r.end) & mask)
			rc = hostile(g, "a list of pages", r.start);
		else
			rc = absent ? drop(g, r.start, r.end - r.start)
				    : put(g, r.start, NULL, r.end - r.start);
	}
	return rc;
}

static int take_bytes(struct paging *g, const struct tf_extent *x, uint8_t *bytes)
{
	uint64_t room, at = tf_image_address(&g->p->image, x->offset, &room);

	if (at == UINT64_MAX || x->size > room ||
		(at | x->size) & (g->p->image.source.page_size - 1))
		return hostile(g, "an extent that is no memory's", x->offset);
	change_owners(g, at, bytes, x->size);
	return put(g, at, bytes, x->size);
}

static int take_extent(void *ctx, const struct tf_extent *x, uint8_t *bytes)
{
	struct paging *g = ctx;

	if (x->crc != tf_extent_crc_with(g->crc_instruction, x->offset, x->size, bytes))
		return tf_fail(&g->p->err, TELEFORK_E_CHECKSUM,
			"the extent at byte %llu arrived damaged", (unsigned long long)x->offset);
	g->chain = tf_chain_crc(g->chain, x->crc);
	g->count++;
	g->taken += x->size;
	return x->offset == TF_ZEROS_OFFSET    ? take_list(g, bytes, x->size, false)
	       : x->offset == TF_ABSENT_OFFSET ? take_list(g, bytes, x->size, true)
	       : x->offset == TF_OWNED_OFFSET  ? take_owned(g, bytes, x->size)
					       : take_bytes(g, x, bytes);
}

/* A mark: a section begins, or ends. */
static int take_mark(struct paging *g, const struct tf_extent *x)
{
	if (!g->p->unpacker || x->size != !g->packed)
		return hostile(g, "a section of packed memory", x->size);
	g->packed = x->size;
	g->at += sizeof(*x);
	return 1;
}

static int take_plain(struct paging *g, const struct tf_extent *x)
{
	uint8_t *bytes = g->in + g->at + sizeof(*x);
	int rc;

	if (!x->size || x->size > TF_EXTENT_MAX)
		return hostile(g, "an extent's size", x->offset);
	if (g->end - g->at - sizeof(*x) < x->size)
		return 0;
	rc = take_extent(g, x, bytes);
	g->at += sizeof(*x) + x->size;
	return rc ? rc : 1;
}

static int take_packed(struct paging *g)
{
	struct tf_unpacker *u = g->p->unpacker;
	int64_t n = u->one(u, g->in + g->at, g->end - g->at, take_extent, g, &g->p->err);

	if (n <= 0)
		return (int)n;
	g->at += (size_t)n;
	return 1;
}

/* 1: an extent, a mark, or the trailer, was whole and is taken. 0: more has to come. */
static int take_next(struct paging *g)
{
	struct tf_extent x;

	if (g->end - g->at < sizeof(x))
		return 0;
	memcpy(&x, g->in + g->at, sizeof(x));
	if (x.offset == TF_PACKED_OFFSET)
		return take_mark(g, &x);
	if (x.offset == TF_TRAILER_OFFSET) {
		g->over = !g->packed && x.size == g->count && x.crc == g->chain;
		return g->over ? 1
			       : tf_fail(&g->p->err, TELEFORK_E_CHECKSUM,
					 "memory that comes later: an extent is missing");
	}
	return g->packed ? take_packed(g) : take_plain(g, &x);
}

/* --- the loop --- */

/* What the sender has sent by now; *ret_any: whether that was anything. */
static int fill(struct paging *g, bool *ret_any)
{
	struct tf_io *io = &g->p->io;
	size_t most = g->hot_ns ? IN_HOT : IN_READ;
	ssize_t n;

	*ret_any = false;
	if (g->at) {
		memmove(g->in, g->in + g->at, g->end - g->at);
		g->end -= g->at;
		g->at = 0;
	}
	if (!io->socket && poll(&(struct pollfd){.fd = io->fd, .events = POLLIN}, 1, 0) <= 0)
		return 0;
	most = most < IN_SIZE - g->end ? most : IN_SIZE - g->end;
	n = io->socket ? recv(io->fd, g->in + g->end, most, MSG_DONTWAIT)
		       : read(io->fd, g->in + g->end, most);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return tf_fail(&g->p->err, TELEFORK_E_CLOSED,
			"the sender closed the connection before all memory had come");
	io->received += (uint64_t)n;
	g->end += (size_t)n;
	*ret_any = true;
	return 0;
}

/* What the spaces have to tell by now; wait: or the sender has sent something. */
static int hear(struct paging *g, bool wait)
{
	struct tf_spaces *s = &g->g->spaces;
	struct tf_pad *p = g->p;
	int rc = 0, got;
	size_t n = s->n;

	if (!wait && n == 1)
		return tf_spaces_hear(s, 0, &p->err);
	if (g->n_fd < n + 1) {
		struct pollfd *fd = realloc(g->fd, 2 * (n + 1) * sizeof(*fd));

		if (!fd)
			return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory");
		g->fd = fd;
		g->n_fd = 2 * (n + 1);
	}
	for (size_t i = 0; i < n; i++)
		g->fd[i] = (struct pollfd){.fd = s->v[i].uffd, .events = POLLIN};
	g->fd[n] = (struct pollfd){.fd = p->io.fd, .events = POLLIN};
	got = poll(g->fd, (nfds_t)n + wait, wait ? p->io.idle_ms : 0);
	if (!got && wait)
		rc = tf_fail(&p->err, TELEFORK_E_TIMEOUT, "the sender moved no byte for %d ms",
			p->io.idle_ms);
	for (size_t i = 0; i < n && got > 0 && !rc; i++)
		if (g->fd[i].revents)
			rc = tf_spaces_hear(s, i, &p->err);
	return rc;
}

/* Who waits is heard first, and between one extent and the next. */
static int step(struct paging *g)
{
	int rc = hear(g, false);
	bool any = false;

	if (!rc)
		rc = take_next(g);
	if (!rc)
		rc = fill(g, &any);
	tell_taken(g, any || rc > 0 ? TOLD : 1);
	if (!rc && !any && tf_now_ns() > g->awake_ns)
		rc = hear(g, true);
	return rc < 0 ? rc : g->p->err.code; /* of a request */
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

/* Before it runs: who touches something then is not to wait for this. */
static int prepare(struct tf_pad *p)
{
	struct paging *g = p->pager.paging = calloc(1, sizeof(*g));
	int uffd = p->pager.uffd;

	if (g) {
		*g = (struct paging){.p = p, .g = &p->pager};
		g->in = malloc(IN_SIZE);
		g->owned = malloc(OWNED_MAX * sizeof(*g->owned));
	}
	if (!g || !g->in || !g->owned)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for what comes later");
	p->pager.uffd = -1; /* the space's */
	return tf_spaces_begin(&p->pager.spaces, uffd, p->image.later, p->image.n_later,
		p->facts.page_size, &p->err);
}

int tf_pager_run(struct tf_pad *p)
{
	struct paging *g = p->pager.paging;

	g->left = p->to_come;
	g->crc_instruction = tf_crc32c_has_instruction();
	g->hot_ns = tf_now_ns() + HOT_NS; /* it is about to ask */
	p->pager.spaces.wanted = ask;
	p->pager.spaces.forked = hold;
	p->pager.spaces.ctx = g;
	return page_all(g);
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
	int rc = tf_guard_start(&p->pager.guard, p->child, &p->err);

	for (r.tag = 'p'; !rc && r.tag == 'p';) { /* some goes first, packed or not */
		rc = await(p, deadline_ns);
		if (rc)
			return rc;
		m.msg_controllen = sizeof(control);
		if (recvmsg(p->control, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL) != sizeof(r))
			return tf_fail(&p->err, TELEFORK_E_RESTORE,
				"the new process ended while it was being restored");
		rc = r.tag == 'p' ? tf_pad_unpack(p, deadline_ns) : 0;
	}
	if (rc)
		return rc;
	c = CMSG_FIRSTHDR(&m);
	if (r.tag == 'e')
		return tf_pad_explain(p, &r);
	if (r.tag != 'u' || !c || c->cmsg_type != SCM_RIGHTS)
		return tf_fail(&p->err, TELEFORK_E_RESTORE, "the new process said something else");
	memcpy(&p->pager.uffd, CMSG_DATA(c), sizeof(int));
	tf_guard_add(&p->pager.guard, p->pager.uffd);
	return prepare(p);
}

void tf_pager_done(struct tf_pager *g)
{
	if (g->paging) {
		free(g->paging->in);
		free(g->paging->owned);
		free(g->paging->fd);
	}
	free(g->paging);
	g->paging = NULL;
	tf_spaces_done(&g->spaces);
	if (g->uffd >= 0)
		close(g->uffd);
	g->uffd = -1;
	tf_guard_end(&g->guard);
}
