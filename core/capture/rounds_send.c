/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a round (rounds.h): many pieces are read in one call, each with what lies around it,
 * for a lock may lie across two pages.
 */
#include "core/base/zero.h"
#include "core/capture/rounds.h"
#include "core/restore/build.h"
#include "core/restore/owners.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define MARGIN   64u         /* around a piece */
#define PIECES   256u        /* that are read at a time */
#define OTHER_ID 0x20000000u /* no thread has an id with this bit: TF_MAX_TID */

_Static_assert(TF_ROUNDS_BUFFER >= TF_EXTENT_MAX + 2 * MARGIN * PIECES, "pieces");

struct piece {
	uint64_t at, n; /* whole pages */
	uint8_t *bytes;
};

struct batch {
	struct tf_rounds *r;
	struct piece piece[PIECES];
	unsigned n;
	uint64_t size, used; /* of pages, and of the buffer */
	struct tf_runs *gone;
};

static int no_memory(struct tf_rounds *r)
{
	return tf_fail(&r->err, TELEFORK_E_NOMEM, "out of memory for rounds");
}

/* --- locks --- */

/* The ids of its threads, as they are now: whoever took a lock in what was written was there. */
static int see_threads(struct tf_rounds *r)
{
	struct tf_owner *o = NULL;
	size_t n = 0, room = 0;
	struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)r->pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		uint32_t tid = (uint32_t)strtoul(entry->d_name, NULL, 10);
		struct tf_owner *v = o;

		if (tid && n == room) {
			room = room ? 2 * room : 64;
			v = realloc(o, room * sizeof(*o));
		}
		if (!v && tid) {
			free(o);
			closedir(dir);
			return no_memory(r);
		}
		o = v;
		if (tid) /* robust locks are found by the threads' lists */
			o[n++] = (struct tf_owner){.old = tid, .now = tid ^ OTHER_ID, .robust = 1};
	}
	if (dir)
		closedir(dir);
	free(r->owners.owner);
	if (n)
		tf_owners_sort(o, (uint32_t)n);
	r->owners = (struct tf_owners){
		.owner = o, .n_owners = n, .page = (uint64_t)sysconf(_SC_PAGESIZE)};
	return n ? 0 : tf_fail(&r->err, TELEFORK_E_SYSTEM, "process %d has ended", (int)r->pid);
}

static int add_held(struct tf_rounds *r, uint64_t at)
{
	if (r->n_held == r->room_held) {
		size_t room = r->room_held ? 2 * r->room_held : 256;
		uint64_t *v = realloc(r->held, room * sizeof(*v));

		if (!v)
			return no_memory(r);
		r->held = v;
		r->room_held = room;
	}
	r->held[r->n_held++] = at;
	return 0;
}

/* Where in the piece and around it ids of threads stand because they hold locks. */
static int find_held(struct tf_rounds *r, const struct piece *p)
{
	const uint8_t *from = p->bytes - MARGIN;
	uint64_t n = p->n + 2 * MARGIN;
	const struct tf_owner_range range = {(uint64_t)r->other, (uint64_t)r->other + n};
	int rc = 0;

	memcpy(r->other, from, n);
	tf_owner_search(&r->owners, &range, range.start, range.start, range.end);
	if (!memcmp(r->other, from, n))
		return 0;
	for (uint64_t i = 0; i < n && !rc; i += 4)
		if (memcmp(r->other + i, from + i, 4))
			rc = add_held(r, p->at - MARGIN + i);
	return rc;
}

/* What was found in pages that go again. */
static void forget_held(struct tf_rounds *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_held; i++)
		if (!tf_runs_meet(&r->written, r->held[i], r->held[i] + 4))
			r->held[n++] = r->held[i];
	r->n_held = n;
}

/* --- reading --- */

/* Bytes in [from, to) of the iovs, from where it stopped. */
static ssize_t read_some(
	const struct tf_rounds *r, const struct iovec *to, const struct iovec *from, unsigned n)
{
	return process_vm_readv(r->pid, to, n, from, n, 0);
}

/* Code that reads it may not: we may. */
static uint64_t read_slowly(const struct tf_rounds *r, const struct piece *p, uint64_t done)
{
	ssize_t got = pread(r->mem, p->bytes + done, p->n - done, (off_t)(p->at + done));

	return (done + (got > 0 ? (uint64_t)got : 0)) & ~(r->owners.page - 1);
}

/* A piece ends where nothing is there any more; what lies behind that is written to by the next
 * round's word, or not there either. */
static void read_pieces(struct batch *b)
{
	struct iovec to[PIECES], from[PIECES];

	for (unsigned i = 0; i < b->n; i++) {
		to[i] = (struct iovec){b->piece[i].bytes, b->piece[i].n};
		from[i] = (struct iovec){(void *)b->piece[i].at, b->piece[i].n};
	}
	for (unsigned i = 0; i < b->n;) {
		ssize_t got = read_some(b->r, to + i, from + i, b->n - i);
		uint64_t left = got > 0 ? (uint64_t)got : 0;

		for (; i < b->n && left >= b->piece[i].n; i++)
			left -= b->piece[i].n;
		if (i == b->n)
			break;
		b->piece[i].n = read_slowly(b->r, &b->piece[i], left & ~(b->r->owners.page - 1));
		i++;
	}
}

/* Where there is nothing, zeros. */
static void read_margins(struct batch *b)
{
	struct iovec to[2 * PIECES], from[2 * PIECES];
	unsigned n = 0;

	for (unsigned i = 0; i < b->n; i++) {
		const struct piece *p = &b->piece[i];
		const struct {
			uint8_t *to;
			uint64_t from;
		} side[2] = {{p->bytes - MARGIN, p->at - MARGIN}, {p->bytes + p->n, p->at + p->n}};

		for (unsigned k = 0; k < 2; k++, n++) {
			memset(side[k].to, 0, MARGIN);
			to[n] = (struct iovec){side[k].to, MARGIN};
			from[n] = (struct iovec){(void *)side[k].from, MARGIN};
		}
	}
	for (unsigned i = 0; i < n; i++) {
		ssize_t got = read_some(b->r, to + i, from + i, n - i);

		i += got > 0 ? (unsigned)((uint64_t)got / MARGIN) : 0;
	}
}

/* --- sending --- */

/* Of what has never gone, pages of zeros need not go. */
static bool is_needed(const struct tf_rounds *r, const struct piece *p, uint64_t i)
{
	uint64_t page = r->owners.page;

	return !tf_all_zero(p->bytes + i, page) ||
	       tf_runs_meet(&r->ever, p->at + i, p->at + i + page);
}

static int send_piece(struct tf_rounds *r, const struct piece *p)
{
	uint64_t page = r->owners.page;
	int rc = 0;

	for (uint64_t i = 0, end; i < p->n && !rc; i = end) {
		bool needed = is_needed(r, p, i);

		for (end = i + page; end < p->n && is_needed(r, p, end) == needed; end += page)
			;
		if (needed)
			rc = tf_sink_data(
				&r->sink, p->at + i, p->bytes + i, end - i, NULL, &r->err);
	}
	return rc;
}

static int send_batch(struct batch *b)
{
	struct tf_rounds *r = b->r;
	int rc = 0;

	read_pieces(b);
	read_margins(b);
	for (unsigned i = 0; i < b->n && !rc; i++) {
		const struct piece *p = &b->piece[i];

		rc = find_held(r, p);
		if (!rc)
			rc = send_piece(r, p);
		if (!rc && tf_runs_add(b->gone, p->at, p->at + p->n))
			rc = no_memory(r);
		r->round[r->n].bytes += p->n;
	}
	if (!rc)
		rc = tf_sink_flush(&r->sink, &r->err);
	if (!rc)
		rc = tf_rounds_hear(r);
	b->n = 0;
	b->size = b->used = 0;
	return rc;
}

static int send_run(struct batch *b, const struct tf_run *run)
{
	int rc = 0;

	for (uint64_t at = run->start, n; at < run->end && !rc && !*b->r->refusal; at += n) {
		n = run->end - at < TF_EXTENT_MAX - b->size ? run->end - at
							    : TF_EXTENT_MAX - b->size;
		b->piece[b->n++] = (struct piece){at, n, b->r->bytes + b->used + MARGIN};
		b->size += n;
		b->used += n + 2 * MARGIN;
		if (b->n == PIECES || b->size == TF_EXTENT_MAX)
			rc = send_batch(b);
	}
	return rc;
}

int tf_rounds_send(struct tf_rounds *r)
{
	struct tf_runs gone = {0};
	struct batch *b = calloc(1, sizeof(*b));
	int rc = b ? see_threads(r) : no_memory(r);

	if (!rc && tf_runs_change(&r->sent, TF_RUNS_WITHOUT, &r->written))
		rc = no_memory(r);
	forget_held(r);
	if (b)
		*b = (struct batch){.r = r, .gone = &gone};
	for (size_t i = 0; i < r->written.n && !rc && !*r->refusal; i++)
		rc = send_run(b, &r->written.v[i]);
	if (!rc)
		rc = send_batch(b);
	if (!rc && (tf_runs_change(&r->sent, TF_RUNS_EITHER, &gone) ||
			   tf_runs_change(&r->ever, TF_RUNS_EITHER, &gone)))
		rc = no_memory(r);
	tf_runs_done(&gone);
	free(b);
	return rc;
}
