/* SPDX-License-Identifier: MIT */
/* See spaces.h. Every answer of the kernel to "put this there" may be that the process has just
 * changed its memory, and says so first: it is heard, and then tried again with what is left. */
#include "core/restore/spaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MESSAGES 32

bool tf_uffd_usable(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = TF_UFFD_FEATURES};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	bool usable = fd >= 0 && !ioctl(fd, UFFDIO_API, &api);

	if (fd >= 0)
		close(fd);
	return usable;
}

/* --- pieces --- */

/* The first piece that ends behind this address of the source. */
static size_t piece_at(const struct tf_space *v, uint64_t at)
{
	size_t low = 0, high = v->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): as in put() */
		if (v->piece[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The piece that belongs to an address here, or NULL. */
static const struct tf_piece *piece_here(const struct tf_space *v, uint64_t here)
{
	size_t i = v->moved ? 0 : piece_at(v, here);

	for (; i < v->n; i++) {
		const struct tf_piece *p = &v->piece[i];

		if (here - p->shift >= p->start && here - p->shift < p->end)
			return p;
		if (!v->moved)
			break;
	}
	return NULL;
}

static int insert(struct tf_space *v, size_t i, const struct tf_piece *p, struct tf_err *e)
{
	if (v->n == v->room) {
		size_t room = v->room ? 2 * v->room : 64;
		struct tf_piece *more = realloc(v->piece, room * sizeof(*more));

		if (!more)
			return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for missing memory");
		v->piece = more;
		v->room = room;
	}
	memmove(&v->piece[i + 1], &v->piece[i], (v->n - i) * sizeof(*v->piece));
	v->piece[i] = *p;
	v->n++;
	return 0;
}

/* Cuts piece i off before `at`, if that lies in it: what is behind becomes piece i + 1. */
static int split(struct tf_space *v, size_t i, uint64_t at, struct tf_err *e)
{
	struct tf_piece p = v->piece[i];
	int rc;

	if (at <= p.start || at >= p.end)
		return 0;
	v->piece[i].end = at;
	p.start = at;
	rc = insert(v, i + 1, &p, e);
	if (rc)
		v->piece[i].end = p.end;
	return rc;
}

/* [start, end) of the source, inside piece i, is not missing any more. */
static int cut(struct tf_space *v, size_t i, uint64_t start, uint64_t end, struct tf_err *e)
{
	struct tf_piece *p = &v->piece[i];

	if (start > p->start && end < p->end) {
		int rc = split(v, i, end, e);

		v->piece[i].end = rc ? v->piece[i].end : start;
		return rc;
	}
	if (start > p->start)
		p->end = start;
	else if (end < p->end)
		p->start = end;
	else
		memmove(p, p + 1, (v->n-- - i - 1) * sizeof(*p));
	return 0;
}

/* The part of piece i that belongs to [from, to) here, as addresses of the source. False: none. */
static bool part_here(
	const struct tf_space *v, size_t i, uint64_t from, uint64_t to, struct tf_run *ret)
{
	const struct tf_piece *p = &v->piece[i];
	uint64_t start = p->start + p->shift, end = p->end + p->shift;

	if (start >= to || end <= from)
		return false;
	ret->start = (start > from ? start : from) - p->shift;
	ret->end = (end < to ? end : to) - p->shift;
	return true;
}

/* --- what a space tells --- */

static void wake(const struct tf_space *v, uint64_t from, uint64_t to)
{
	struct uffdio_range r = {from, to - from};

	ioctl(v->uffd, UFFDIO_WAKE, &r);
}

/* Given up or unmapped: it reads as zeros, if at all. Who waits for it looks again. */
static int forget(struct tf_space *v, uint64_t from, uint64_t to, struct tf_err *e)
{
	struct tf_run part;
	int rc = 0;

	for (size_t i = 0; i < v->n && !rc;) {
		size_t n = v->n;

		if (part_here(v, i, from, to, &part))
			rc = cut(v, i, part.start, part.end, e);
		i += v->n >= n; /* else the next one stands here now */
	}
	wake(v, from, to);
	return rc;
}

static int move(struct tf_space *v, uint64_t from, uint64_t to, uint64_t size, struct tf_err *e)
{
	struct tf_run part;
	int rc = 0;

	for (size_t i = 0; i < v->n && !rc; i++) {
		if (!part_here(v, i, from, from + size, &part))
			continue;
		if (part.start > v->piece[i].start) {
			rc = split(v, i, part.start, e); /* its turn is next */
			continue;
		}
		rc = split(v, i, part.end, e);
		if (!rc)
			v->piece[i].shift += to - from;
	}
	v->moved = true;
	wake(v, from, from + size);
	return rc;
}

static int fork_space(struct tf_spaces *s, size_t space, int uffd, struct tf_err *e)
{
	struct tf_space *all = realloc(s->v, (s->n + 1) * sizeof(*all)), *v, *from;

	if (!all) {
		close(uffd);
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for another address space");
	}
	s->v = all;
	from = &all[space];
	v = &all[s->n++];
	*v = (struct tf_space){
		.uffd = uffd, .n = from->n, .room = from->n + 1, .moved = from->moved};
	v->piece = malloc(v->room * sizeof(*v->piece));
	if (!v->piece)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for missing memory");
	memcpy(v->piece, from->piece, from->n * sizeof(*v->piece));
	fcntl(uffd, F_SETFL, O_NONBLOCK);
	if (s->forked)
		s->forked(s->ctx, uffd);
	return 0;
}

/* What was never there, or was given up, is zeros. */
static void put_zeros(const struct tf_spaces *s, const struct tf_space *v, uint64_t here)
{
	struct uffdio_zeropage z = {.range = {here & ~(s->page - 1), s->page}};

	if (ioctl(v->uffd, UFFDIO_ZEROPAGE,
		    &z)) /* there by now, or something is to be heard first */
		wake(v, z.range.start, z.range.start + s->page);
}

static void want(const struct tf_spaces *s, const struct tf_space *v, uint64_t here)
{
	const struct tf_piece *p = piece_here(v, here);

	if (!p)
		put_zeros(s, v, here);
	else
		s->wanted(s->ctx, here - p->shift);
}

static int take(struct tf_spaces *s, size_t space, const struct uffd_msg *m, struct tf_err *e)
{
	struct tf_space *v = &s->v[space];

	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		want(s, v, m->arg.pagefault.address);
		return 0;
	case UFFD_EVENT_FORK:
		return fork_space(s, space, (int)m->arg.fork.ufd, e);
	case UFFD_EVENT_REMAP:
		return move(v, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len, e);
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return forget(v, m->arg.remove.start, m->arg.remove.end, e);
	default:
		return tf_fail(e, TELEFORK_E_RESTORE, "userfaultfd tells of an unknown event %u",
			m->event);
	}
}

int tf_spaces_hear(struct tf_spaces *s, size_t space, struct tf_err *e)
{
	struct uffd_msg m[MESSAGES];

	for (;;) {
		ssize_t n = s->v[space].uffd < 0 ? 0 : read(s->v[space].uffd, m, sizeof(m));
		int rc = 0;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return tf_fail_errno(e, TELEFORK_E_RESTORE, errno, "userfaultfd");
		for (size_t i = 0; n > 0 && i < (size_t)n / sizeof(*m) && !rc; i++)
			rc = take(s, space, &m[i], e);
		if (rc || n < (ssize_t)sizeof(m))
			return rc;
	}
}

/* --- what comes --- */

static void end_space(struct tf_space *v)
{
	if (v->uffd >= 0)
		close(v->uffd);
	free(v->piece);
	*v = (struct tf_space){.uffd = -1};
}

/* Returns how many bytes are there now; *ret_error: why not all, or 0. */
static uint64_t copy(
	const struct tf_space *v, uint64_t here, const uint8_t *bytes, uint64_t n, int *ret_error)
{
	struct uffdio_copy c = {.dst = here, .src = (uint64_t)bytes, .len = n};
	struct uffdio_zeropage z = {.range = {here, n}};
	bool done =
		!(bytes ? ioctl(v->uffd, UFFDIO_COPY, &c) : ioctl(v->uffd, UFFDIO_ZEROPAGE, &z));
	int64_t got = bytes ? c.copy : z.zeropage;

	*ret_error = done || got > 0 ? 0 : errno;
	return done ? n : got > 0 ? (uint64_t)got : 0;
}

/* One piece's part [start, end). 0, or what is to be done about it. */
static int put_part(struct tf_spaces *s, size_t space, size_t i, const struct tf_run *part,
	const uint8_t *bytes, struct tf_err *e)
{
	struct tf_space *v = &s->v[space];
	int error;
	uint64_t done =
		copy(v, part->start + v->piece[i].shift, bytes, part->end - part->start, &error);

	switch (error) {
	case 0:
		return cut(v, i, part->start, part->start + done, e);
	case EEXIST: /* of a space that was forked in between, say */
	case ENOENT: /* not mapped any more */
		return cut(v, i, part->start, part->start + s->page, e);
	case EAGAIN: /* its memory is being changed: it says how in a moment */
		poll(&(struct pollfd){.fd = v->uffd, .events = POLLIN}, 1, 1);
		return tf_spaces_hear(s, space, e);
	case ESRCH:
		end_space(v);
		return 0;
	default:
		return tf_fail_errno(e, error == ENOMEM ? TELEFORK_E_NOMEM : TELEFORK_E_RESTORE,
			error, "memory of the process at %llx",
			(unsigned long long)(part->start + v->piece[i].shift));
	}
}

static int put(struct tf_spaces *s, size_t space, uint64_t address, const uint8_t *bytes,
	uint64_t n, struct tf_err *e)
{
	for (;;) {
		struct tf_space *v = &s->v[space];
		size_t i = piece_at(v, address);
		struct tf_run part;
		int rc;

		/* NOLINTNEXTLINE(clang-analyzer-*): one that has ended has no pieces */
		if (i == v->n || v->piece[i].start >= address + n)
			return 0;
		part.start = v->piece[i].start > address ? v->piece[i].start : address;
		part.end = v->piece[i].end < address + n ? v->piece[i].end : address + n;
		rc = put_part(s, space, i, &part, bytes ? bytes + (part.start - address) : NULL, e);
		if (rc)
			return rc;
	}
}

int tf_spaces_put(
	struct tf_spaces *s, uint64_t address, const void *bytes, uint64_t n, struct tf_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < s->n && !rc; i++) /* there may be more of them meanwhile */
		rc = put(s, i, address, bytes, n, e);
	return rc;
}

static int drop(struct tf_space *v, uint64_t start, uint64_t end, struct tf_err *e)
{
	for (;;) {
		size_t i = piece_at(v, start);
		struct tf_piece p;
		int rc;

		if (i == v->n || v->piece[i].start >= end)
			return 0;
		p = v->piece[i];
		p.start = p.start > start ? p.start : start;
		p.end = p.end < end ? p.end : end;
		rc = cut(v, i, p.start, p.end, e);
		if (rc)
			return rc;
		if (v->uffd >= 0)
			wake(v, p.start + p.shift, p.end + p.shift);
	}
}

int tf_spaces_drop(struct tf_spaces *s, uint64_t address, uint64_t n, struct tf_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < s->n && !rc; i++)
		rc = drop(&s->v[i], address, address + n, e);
	return rc;
}

uint64_t tf_spaces_missing(const struct tf_spaces *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		for (size_t k = 0; k < s->v[i].n; k++)
			n += s->v[i].piece[k].end - s->v[i].piece[k].start;
	return n;
}

bool tf_spaces_live(const struct tf_spaces *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].uffd >= 0)
			return true;
	return false;
}

int tf_spaces_begin(struct tf_spaces *s, int uffd, const struct tf_run *later, uint32_t n_later,
	uint64_t page, struct tf_err *e)
{
	*s = (struct tf_spaces){.v = calloc(1, sizeof(*s->v)), .page = page};
	if (!s->v) {
		close(uffd);
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for an address space");
	}
	s->n = 1;
	s->v->uffd = uffd;
	s->v->room = n_later + 1u;
	s->v->piece = calloc(s->v->room, sizeof(*s->v->piece));
	if (!s->v->piece)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for missing memory");
	for (uint32_t i = 0; i < n_later; i++)
		s->v->piece[i] = (struct tf_piece){later[i].start, later[i].end, 0};
	s->v->n = n_later;
	return 0;
}

void tf_spaces_done(struct tf_spaces *s)
{
	for (size_t i = 0; i < s->n; i++)
		end_space(&s->v[i]);
	free(s->v);
	*s = (struct tf_spaces){0};
}
