/* SPDX-License-Identifier: MIT */
/*
 * Post-copy, the sender's side: memory goes when the process runs over there already, in order, but
 * for what it asks for (stream.h): the page that a thread waits for goes at once, then what is
 * around it. As long as it asks, little is on the way that it did not ask for.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "core/base/zero.h"
#include "core/restore/build.h"
#include "core/restore/owners.h"

#define AROUND   65536u      /* what is around an address that was asked for */
#define BLOCK    262144u     /* goes at a time where none is */
#define STEP     16384u      /* and where some are: no request waits for more */
#define MARGIN   64u         /* a lock may lie across the edge of what goes at a time */
#define OTHER_ID 0x20000000u /* no thread has an id with this bit: TF_MAX_TID */
#define RESTS    64u
#define DROP     4194304u /* what has gone is given up in the snapshot, so much at a time */

#define BEGIN_NS    1000000u /* it has hardly begun to run, and is about to ask */
#define HOT_NS      5000000u /* after it has asked for something */
#define HOT_UNTAKEN 65536u   /* bytes on the way */
#define HOT_WAIT_NS 50000
#define AWAKE_NS    60000u /* after a page has gone: who got it may soon touch another */

/* Of a run of image.later. */
struct rest {
	uint32_t run;
	uint64_t at, end;
};

struct serving {
	struct tf_task *t;
	uint64_t page;
	uint64_t *first; /* number of the first page of each run of image.later */
	uint8_t *gone;   /* a bit for each page */
	uint8_t *bytes;  /* BLOCK, and a margin on both sides */
	uint8_t *other;  /* the same, in which the holders of locks have other ids */
	uint64_t *told;  /* of one extent at most */
	struct tf_owners owners;
	struct rest rest[RESTS]; /* what is around pages that were asked for, oldest first */
	unsigned n_rest;
	uint64_t hot_ns, awake_ns, sent;
	uint64_t begun; /* sink.data, then */
	uint64_t taken; /* bytes of extents since, which are in place over there, as it says */
	bool owed;      /* a page has gone; what nobody waits for is not to starve */
	bool over;      /* it has answered */
	struct tf_reply *reply;
	char *message;
};

/* --- pages --- */

static uint64_t page_of(const struct serving *s, uint32_t run, uint64_t at)
{
	return s->first[run] + (at - s->t->capture.image.later[run].start) / s->page;
}

static bool is_gone(const struct serving *s, uint32_t run, uint64_t at)
{
	uint64_t n = page_of(s, run, at);

	return s->gone[n / 8] >> n % 8 & 1;
}

static void mark_gone(struct serving *s, uint32_t run, uint64_t at, uint64_t end)
{
	for (; at < end; at += s->page) {
		uint64_t n = page_of(s, run, at);

		s->gone[n / 8] |= (uint8_t)(1u << n % 8);
	}
}

/* The first part of [at, end) of a run, of `most` bytes or fewer, that has not gone. False: none.
 */
static bool next_part(const struct serving *s, uint32_t run, uint64_t at, uint64_t end,
	uint64_t most, struct tf_run *ret)
{
	while (at < end && is_gone(s, run, at))
		at += s->page;
	*ret = (struct tf_run){at, at};
	while (ret->end < end && ret->end - at < most && !is_gone(s, run, ret->end))
		ret->end += s->page;
	return ret->end > at;
}

static int prepare_owners(struct serving *s)
{
	const struct tf_image *img = &s->t->capture.image;
	struct tf_owner *o = tf_arena_array(&s->t->capture.arena, img->n_threads, sizeof(*o));

	if (!o)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_threads; i++)
		o[i] = (struct tf_owner){.old = (uint32_t)img->threads[i].tid,
			.now = (uint32_t)img->threads[i].tid ^ OTHER_ID,
			.robust = img->threads[i].robust_head};
	tf_owners_sort(o, img->n_threads);
	s->owners = (struct tf_owners){
		.owner = o, .n_owners = img->n_threads, .page = img->source.page_size};
	return 0;
}

static int prepare(struct serving *s)
{
	const struct tf_image *img = &s->t->capture.image;
	struct tf_arena *a = &s->t->capture.arena;
	uint64_t n = 0, size = BLOCK + 2 * MARGIN;

	s->page = img->source.page_size;
	s->first = tf_arena_array(a, img->n_later + 1u, sizeof(*s->first));
	for (uint32_t i = 0; s->first && i < img->n_later; i++) {
		s->first[i] = n;
		n += (img->later[i].end - img->later[i].start) / s->page;
	}
	s->gone = s->first ? tf_arena_alloc(a, n / 8 + 1) : NULL;
	s->bytes = s->gone ? tf_arena_alloc(a, size) : NULL;
	s->other = s->bytes ? tf_arena_alloc(a, size) : NULL;
	s->told = s->other ? tf_arena_alloc(a, TF_EXTENT_SIZE) : NULL;
	if (!s->told || prepare_owners(s))
		return tf_fail(&s->t->capture.err, TELEFORK_E_NOMEM,
			"out of memory for a list of what has gone");
	return 0;
}

/* --- sending --- */

static int tell(struct serving *s, uint64_t what, uint64_t *n)
{
	struct tf_capture *c = &s->t->capture;
	int rc = *n ? tf_sink_plain(&c->sink, what, s->told, *n * sizeof(*s->told), NULL, &c->err)
		    : 0;

	if (!rc && *n)
		rc = tf_sink_flush(&c->sink, &c->err);
	*n = 0;
	return rc;
}

#define TOLD_MAX (TF_EXTENT_SIZE / sizeof(uint64_t))

/* Whether some word looks like the holder of a lock (owners.h): mostly none does. */
static bool may_hold(const struct serving *s, uint64_t size)
{
	const struct tf_owners *o = &s->owners;
	const uint64_t *word = (const uint64_t *)(const void *)s->bytes;
	uint32_t low = o->owner[0].old, span = o->owner[o->n_owners - 1].old - low;

	for (uint64_t i = 0; i < size / 8; i++)
		if ((uint32_t)word[i] - low <= span && word[i] >> 32 <= TF_OWNER_USERS)
			return true;
	return false;
}

/* Where in [at, at + n) threads' ids stand because they hold locks: they have others over there,
 * and who receives a part does not see its neighbours. s->bytes + before holds it, and behind it
 * are `behind` bytes more. */
static int tell_owners(struct serving *s, uint64_t at, uint64_t n, uint64_t before, uint64_t behind)
{
	uint64_t size = before + n + behind, told = 0;
	const struct tf_owner_range r = {(uint64_t)s->other, (uint64_t)s->other + size};
	int rc = 0;

	if (!may_hold(s, size))
		return 0;
	memcpy(s->other, s->bytes, size);
	tf_owner_search(&s->owners, &r, r.start, r.start, r.end);
	for (uint64_t i = before; i < before + n && !rc; i += 4) {
		if (!memcmp(s->other + i, s->bytes + i, 4))
			continue;
		s->told[told++] = at + i - before;
		if (told == TOLD_MAX)
			rc = tell(s, TF_OWNED_OFFSET, &told);
	}
	return rc ? rc : tell(s, TF_OWNED_OFFSET, &told);
}

/* Pages of zeros are only told of. */
static int send_pages(struct serving *s, uint64_t at, const uint8_t *bytes, uint64_t n)
{
	struct tf_capture *c = &s->t->capture;
	uint64_t page = c->image.source.page_size, told = 0;
	int rc = 0;

	for (uint64_t i = 0; i < n && !rc;) {
		uint64_t end = i;

		while (end < n && !tf_all_zero(bytes + end, page))
			end += page;
		if (end > i)
			rc = tf_sink_data(&c->sink, tf_image_offset(&c->image, at + i), bytes + i,
				end - i, NULL, &c->err);
		for (i = end; i < n && tf_all_zero(bytes + i, page); i += page)
			;
		if (i > end) {
			s->told[told++] = at + end;
			s->told[told++] = at + i;
		}
	}
	if (!rc)
		rc = tf_sink_flush(&c->sink, &c->err);
	return rc ? rc : tell(s, TF_ZEROS_OFFSET, &told);
}

/* What is there of a part of a run. */
static int send_present(struct serving *s, uint32_t run, const struct tf_run *part)
{
	const struct tf_run *r = &s->t->capture.image.later[run];
	const struct tf_map *m = tf_image_map_at(&s->t->capture.image, part->start);
	uint64_t before = part->start - r->start < MARGIN ? part->start - r->start : MARGIN;
	uint64_t behind = r->end - part->end < MARGIN ? r->end - part->end : MARGIN;
	uint64_t n = part->end - part->start;
	/* Not by process_vm_readv(2), which pins pages, and so copies those that are shared with a
	 * fork. */
	int rc = tf_task_read(s->t, part->start - before, s->bytes, before + n + behind);

	if (!rc && m && m->prot & PROT_WRITE)
		rc = tell_owners(s, part->start, n, before, behind);
	if (!rc)
		rc = send_pages(s, part->start, s->bytes + before, n);
	return rc;
}

/* The same, of a mapping whose pages nobody has looked at yet. */
static int send_found(struct serving *s, uint32_t run, const struct tf_run *part)
{
	struct tf_run found[BLOCK / 4096 + 1];
	struct tf_capture *c = &s->t->capture;
	uint32_t n = tf_capture_present(
		c, tf_task_pagemap(s->t), part, found, sizeof(found) / sizeof(*found) - 1);
	uint64_t at = part->start, told = 0;
	int rc;

	found[n] = (struct tf_run){part->end, part->end};
	for (uint32_t i = 0; i <= n; at = found[i++].end) {
		if (found[i].start <= at)
			continue;
		s->told[told++] = at;
		s->told[told++] = found[i].start;
		c->memory -= found[i].start - at;
	}
	rc = tell(s, TF_ABSENT_OFFSET, &told);
	for (uint32_t i = 0; i < n && !rc; i++)
		rc = send_present(s, run, &found[i]);
	return rc;
}

/* A part of a run, BLOCK at most. */
static int send_part(struct serving *s, uint32_t run, const struct tf_run *part)
{
	const struct tf_map *m = tf_image_map_at(&s->t->capture.image, part->start);
	int rc = m && tf_task_is_whole(s->t, m) ? send_found(s, run, part)
						: send_present(s, run, part);

	mark_gone(s, run, part->start, part->end);
	s->sent += part->end - part->start;
	return rc;
}

/* --- what it asks for --- */

/* The rest of a word, of which n bytes are there. 1: it has come. 0: it was an answer, the last. */
static int finish_word(struct serving *s, struct tf_want *w, size_t n)
{
	struct tf_capture *c = &s->t->capture;
	int rc = tf_io_read(&c->io, (char *)w + n, sizeof(*w) - n, &c->err);

	if (rc)
		return rc;
	if (memcmp(w->magic, TF_REPLY_MAGIC, sizeof(w->magic)))
		return 1;
	memcpy(s->reply, w, sizeof(*w));
	s->over = true;
	return tf_reply_read_rest(&c->io, s->reply, sizeof(*w), s->message, &c->err);
}

/* The same if one comes. */
static int read_word(struct serving *s, struct tf_want *w)
{
	struct tf_capture *c = &s->t->capture;
	struct pollfd p = {.fd = c->io.fd, .events = POLLIN};
	ssize_t n = 0;

	if (c->io.socket) {
		n = recv(c->io.fd, w, sizeof(*w), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		n = n > 0 ? n : 0; /* the end, which is explained when it is read again */
		c->io.received += (uint64_t)n;
	} else if (poll(&p, 1, 0) <= 0) {
		return 0;
	}
	return finish_word(s, w, (size_t)n);
}

/* The run that holds it; n_later: none. */
static uint32_t find_run(const struct tf_image *img, uint64_t at)
{
	uint32_t low = 0, high = img->n_later;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (at < img->later[middle].start)
			high = middle;
		else if (at >= img->later[middle].end)
			low = middle + 1;
		else
			return middle;
	}
	return img->n_later;
}

/* The page that a thread waits for; what is around it has its turn when nobody waits. */
static int send_wanted(struct serving *s, uint64_t at)
{
	const struct tf_image *img = &s->t->capture.image;
	uint32_t run = find_run(img, at);
	struct tf_run part;
	int rc;

	s->t->requests++;
	s->hot_ns = tf_now_ns() + HOT_NS;
	if (run == img->n_later ||
		!next_part(s, run, at & ~(s->page - 1), (at | (s->page - 1)) + 1, s->page, &part))
		return 0;
	rc = send_part(s, run, &part);
	s->awake_ns = tf_now_ns() + AWAKE_NS;
	s->owed = true;
	if (s->n_rest < RESTS) {
		struct rest *r = &s->rest[s->n_rest++];

		*r = (struct rest){run, at / AROUND * AROUND, (at / AROUND + 1) * AROUND};
		r->at = r->at < img->later[run].start ? img->later[run].start : r->at;
		r->end = r->end < img->later[run].end ? r->end : img->later[run].end;
	}
	return rc;
}

static int heed(struct serving *s, const struct tf_want *w)
{
	if (!memcmp(w->magic, TF_TAKEN_MAGIC, sizeof(w->magic))) {
		s->taken = w->address;
		return 0;
	}
	if (memcmp(w->magic, TF_WANT_MAGIC, sizeof(w->magic)))
		return tf_fail(&s->t->capture.err, TELEFORK_E_PROTOCOL,
			"the receiver says something that is neither a request nor an answer");
	return send_wanted(s, w->address);
}

static bool is_hot(const struct serving *s)
{
	return s->hot_ns && tf_now_ns() < s->hot_ns;
}

static bool is_full(const struct serving *s)
{
	return s->t->capture.sink.data - s->begun - s->taken > HOT_UNTAKEN;
}

/* A step of what is around pages that were asked for. False: there is nothing left of it. */
static bool send_rest(struct serving *s, int *ret_rc)
{
	struct tf_run part;

	while (s->n_rest) {
		struct rest *r = &s->rest[0];

		if (next_part(s, r->run, r->at, r->end, STEP, &part)) {
			r->at = part.end;
			*ret_rc = send_part(s, r->run, &part);
			return true;
		}
		memmove(r, r + 1, --s->n_rest * sizeof(*r));
	}
	return false;
}

/* Until nothing is asked for, and what is on the way is so little that the next request will not
 * wait for it. For each page that is asked for, a step goes of what is not. */
static int attend(struct serving *s)
{
	static const struct timespec wait = {.tv_nsec = HOT_WAIT_NS};
	int rc = 0;

	while (!rc && !s->over) {
		struct pollfd p = {.fd = s->t->capture.io.fd, .events = POLLIN};
		bool owed = s->owed;
		struct tf_want w;

		rc = read_word(s, &w);
		if (rc == 1) {
			rc = heed(s, &w);
			continue;
		}
		if (rc || s->over || (!owed && tf_now_ns() < s->awake_ns))
			continue;
		s->owed = false;
		if (!owed && is_hot(s) && is_full(s))
			ppoll(&p, 1, &wait, NULL);
		else if (!send_rest(s, &rc))
			break;
	}
	return rc;
}

static int send_run(struct serving *s, uint32_t run)
{
	const struct tf_run *r = &s->t->capture.image.later[run];
	uint64_t at = r->start, kept = at; /* not given up yet */
	struct tf_run part;
	int rc = 0;

	while (!rc && !s->over) {
		rc = attend(s);
		if (rc || s->over ||
			!next_part(s, run, at, r->end, is_hot(s) ? STEP : BLOCK, &part))
			break;
		rc = send_part(s, run, &part);
		at = part.end;
		if (!rc && at - kept > DROP) { /* but for the margin of what goes next */
			tf_task_drop_pages(s->t, kept, at - s->page - kept);
			kept = at - s->page;
		}
		if (!rc && s->t->progress)
			s->t->progress(s->t->ctx, s->t->gone + s->sent, s->t->capture.memory);
	}
	return rc;
}

/* What it asked for meanwhile has gone. */
static int await_answer(struct serving *s)
{
	struct tf_want w;
	int rc = 0;

	while (rc >= 0 && !s->over)
		rc = finish_word(s, &w, 0);
	return rc;
}

/* A receiver that gives up may have said why before it closed. */
static int hear_why(struct serving *s)
{
	struct tf_err *e = &s->t->capture.err, closed = *e;

	*e = (struct tf_err){0};
	s->t->capture.io.idle_ms = TF_WHY_MS;
	if (!await_answer(s) && s->reply->code)
		return 0;
	*e = closed;
	return e->code;
}

int tf_task_serve(struct tf_task *t, struct tf_reply *reply, char *message)
{
	struct serving s = {.t = t, .reply = reply, .message = message};
	struct tf_capture *c = &t->capture;
	int rc = c->image.n_later && !t->all_first ? prepare(&s) : 0;

	if (rc || !s.first)
		return rc;
	tf_sink_anew(&c->sink);
	s.begun = c->sink.data;
	s.hot_ns = tf_now_ns() + BEGIN_NS;
	for (uint32_t i = 0; i < c->image.n_later && !rc && !s.over; i++)
		rc = send_run(&s, i);
	if (!rc && !s.over)
		rc = tf_sink_end(&c->sink, &c->image, &c->err);
	if (!rc)
		rc = await_answer(&s);
	if (rc == TELEFORK_E_CLOSED)
		rc = hear_why(&s);
	if (!rc && reply->code)
		rc = tf_fail(&c->err, reply->code, "%s", message);
	return rc;
}

int tf_task_answer(struct tf_task *t, struct tf_reply *reply, char *message)
{
	struct tf_capture *c = &t->capture;
	struct tf_want w;
	int rc = tf_io_read(&c->io, w.magic, sizeof(w.magic), &c->err);

	if (!rc && c->image.n_known && !memcmp(w.magic, TF_KNOWN_MAGIC, sizeof(w.magic))) {
		rc = tf_task_hear_known(t);
		if (!rc)
			rc = tf_io_read(&c->io, w.magic, sizeof(w.magic), &c->err);
	}
	if (!rc && c->image.n_later && !memcmp(w.magic, TF_WANT_MAGIC, sizeof(w.magic))) {
		rc = tf_io_read(&c->io, &w.address, sizeof(w.address), &c->err);
		t->all_first = true;
		tf_sink_anew(&c->sink);
		for (uint32_t i = 0; i < c->image.n_later && !rc; i++)
			rc = tf_task_save_run(t, &c->image.later[i]);
		if (!rc)
			rc = tf_sink_end(&c->sink, &c->image, &c->err);
		if (!rc)
			rc = tf_io_read(&c->io, w.magic, sizeof(w.magic), &c->err);
	}
	if (rc)
		return rc;
	memcpy(reply->magic, w.magic, sizeof(w.magic));
	return tf_reply_read_rest(&c->io, reply, sizeof(w.magic), message, &c->err);
}
