/* SPDX-License-Identifier: MIT */
/*
 * Post-copy, the sender's side: memory goes when the process runs over there already, in order, but
 * for what it asks for, which goes next (stream.h). As long as it asks, little is on the way that
 * it did not ask for.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "core/base/zero.h"
#include "core/restore/build.h"
#include "core/restore/owners.h"

#define BLOCK    65536u      /* goes at a time where one address is asked for */
#define BLOCKS   4u          /* where none is */
#define MARGIN   64u         /* a lock may lie across the edge of a block */
#define OTHER_ID 0x20000000u /* no thread has an id with this bit: TF_MAX_TID */

#define HOT_NS      5000000u /* after it has asked for something */
#define HOT_UNSENT  65536    /* bytes on the way */
#define HOT_WAIT_NS 50000

struct serving {
	struct tf_task *t;
	uint64_t *first; /* number of the first block of each run of image.later */
	uint8_t *gone;   /* a bit for each block */
	uint8_t *bytes;  /* BLOCKS, and a margin on both sides */
	uint8_t *other;  /* the same, in which the holders of locks have other ids */
	uint64_t *told;  /* of one extent at most */
	struct tf_owners owners;
	uint64_t hot_ns, sent, dropped;
	bool over; /* the other side has answered */
	struct tf_reply *reply;
	char *message;
};

/* --- blocks: they begin at multiples of BLOCK --- */

static uint64_t block_of(const struct serving *s, uint32_t run, uint64_t at)
{
	return s->first[run] + at / BLOCK - s->t->capture.image.later[run].start / BLOCK;
}

static bool is_gone(const struct serving *s, uint32_t run, uint64_t at)
{
	uint64_t n = block_of(s, run, at);

	return s->gone[n / 8] >> n % 8 & 1;
}

/* Of a run: from at to the end of its block. */
static uint64_t block_end(const struct serving *s, uint32_t run, uint64_t at)
{
	uint64_t end = (at / BLOCK + 1) * BLOCK;

	return end < s->t->capture.image.later[run].end ? end : s->t->capture.image.later[run].end;
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
	uint64_t n = 0, size = BLOCKS * BLOCK + 2 * MARGIN;

	s->first = tf_arena_array(a, img->n_later + 1u, sizeof(*s->first));
	for (uint32_t i = 0; s->first && i < img->n_later; i++) {
		s->first[i] = n;
		n += (img->later[i].end - 1) / BLOCK - img->later[i].start / BLOCK + 1;
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
	int rc = *n ? tf_sink_data(&c->sink, what, s->told, *n * sizeof(*s->told), NULL, &c->err)
		    : 0;

	if (!rc && *n)
		rc = tf_sink_flush(&c->sink, &c->err);
	*n = 0;
	return rc;
}

#define TOLD_MAX (TF_EXTENT_SIZE / sizeof(uint64_t))

/* Where in [at, at + n) threads' ids stand because they hold locks: they have others over there,
 * and who receives a block does not see its neighbours. s->bytes + before holds it, and behind it
 * are `behind` bytes more. */
static int tell_owners(struct serving *s, uint64_t at, uint64_t n, uint64_t before, uint64_t behind)
{
	uint64_t size = before + n + behind, told = 0;
	const struct tf_owner_range r = {(uint64_t)s->other, (uint64_t)s->other + size};
	int rc = 0;

	memcpy(s->other, s->bytes, size);
	tf_owner_search(&s->owners, &r, r.start, r.end);
	if (!memcmp(s->other, s->bytes, size))
		return 0;
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

/* [at, end) of a run, BLOCKS at most. */
static int send_range(struct serving *s, uint32_t run, uint64_t at, uint64_t end)
{
	struct tf_task *t = s->t;
	const struct tf_run *r = &t->capture.image.later[run];
	const struct tf_map *m = tf_image_map_at(&t->capture.image, at);
	uint64_t before = at - r->start < MARGIN ? at - r->start : MARGIN;
	uint64_t behind = r->end - end < MARGIN ? r->end - end : MARGIN;
	int rc = tf_task_read(t, at - before, s->bytes, before + (end - at) + behind);

	if (!rc && m && m->prot & PROT_WRITE)
		rc = tell_owners(s, at, end - at, before, behind);
	if (!rc)
		rc = send_pages(s, at, s->bytes + before, end - at);
	for (uint64_t k = at; k < end; k = block_end(s, run, k)) {
		uint64_t n = block_of(s, run, k);

		s->gone[n / 8] |= (uint8_t)(1u << n % 8);
	}
	s->sent += end - at;
	return rc;
}

/* --- what it asks for --- */

/* Its words come one by one. 1: an address. 0: it has answered. */
static int read_word(struct serving *s, uint64_t *ret_address)
{
	struct tf_capture *c = &s->t->capture;
	struct tf_want w;
	int rc = tf_io_read(&c->io, w.magic, sizeof(w.magic), &c->err);

	if (rc)
		return rc;
	if (memcmp(w.magic, TF_WANT_MAGIC, sizeof(w.magic))) {
		memcpy(s->reply->magic, w.magic, sizeof(w.magic));
		s->over = true;
		return tf_reply_read_rest(&c->io, s->reply, s->message, &c->err);
	}
	rc = tf_io_read(&c->io, &w.address, sizeof(w.address), &c->err);
	*ret_address = w.address;
	return rc ? rc : 1;
}

/* The same, if one comes in so long; 0: none, too. */
static int hear(struct serving *s, uint64_t wait_ns, uint64_t *ret_address)
{
	struct pollfd p = {.fd = s->t->capture.io.fd, .events = POLLIN};
	const struct timespec ts = {.tv_nsec = (long)wait_ns};

	return ppoll(&p, 1, &ts, NULL) > 0 && !s->over ? read_word(s, ret_address) : 0;
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

static int send_wanted(struct serving *s, uint64_t at)
{
	const struct tf_image *img = &s->t->capture.image;
	uint32_t run = find_run(img, at);
	uint64_t start = at / BLOCK * BLOCK;

	s->t->requests++;
	s->hot_ns = tf_now_ns() + HOT_NS;
	if (run == img->n_later || is_gone(s, run, at))
		return 0;
	if (start < img->later[run].start)
		start = img->later[run].start;
	return send_range(s, run, start, block_end(s, run, start));
}

static bool is_hot(const struct serving *s)
{
	return s->hot_ns && tf_now_ns() < s->hot_ns;
}

/* Until nothing is asked for, and what is on the way is so little that the next request will not
 * wait for it. */
static int attend(struct serving *s)
{
	int rc, unsent;

	for (;;) {
		uint64_t at = 0;
		bool full = is_hot(s) && !ioctl(s->t->capture.io.fd, SIOCOUTQ, &unsent) &&
			    unsent > HOT_UNSENT;

		rc = hear(s, full ? HOT_WAIT_NS : 0, &at);
		if (rc == 1)
			rc = send_wanted(s, at);
		else if (!rc && !full)
			return 0;
		if (rc || s->over)
			return rc;
	}
}

/* Everything of a run, from *at on, that has not gone. */
static uint64_t next_range(const struct serving *s, uint32_t run, uint64_t *at)
{
	const struct tf_run *r = &s->t->capture.image.later[run];
	uint64_t end, most = is_hot(s) ? 1 : BLOCKS;

	while (*at < r->end && is_gone(s, run, *at))
		*at = block_end(s, run, *at);
	end = *at;
	for (uint64_t n = 0; n < most && end < r->end && !is_gone(s, run, end); n++)
		end = block_end(s, run, end);
	return end;
}

static int send_run(struct serving *s, uint32_t run)
{
	const struct tf_run *r = &s->t->capture.image.later[run];
	uint64_t at = r->start, kept = r->start;
	int rc = 0;

	while (!rc && !s->over) {
		uint64_t end;

		rc = attend(s);
		end = next_range(s, run, &at);
		if (rc || s->over || at == end)
			break;
		rc = send_range(s, run, at, end);
		at = end;
		if (!rc && at - kept >= TF_EXTENT_MAX) {
			tf_task_drop_pages(s->t, kept, at - kept);
			kept = at;
		}
		if (!rc && s->t->progress)
			s->t->progress(s->t->ctx, s->t->gone + s->sent, s->t->capture.memory);
	}
	return rc;
}

/* What it asked for meanwhile has gone. */
static int await_answer(struct serving *s)
{
	uint64_t address;
	int rc = 0;

	while (rc >= 0 && !s->over)
		rc = read_word(s, &address);
	return rc;
}

int tf_task_serve(struct tf_task *t, struct tf_reply *reply, char *message)
{
	struct serving s = {.t = t, .reply = reply, .message = message};
	struct tf_capture *c = &t->capture;
	int rc = c->image.n_later && !t->all_first ? prepare(&s) : 0;

	if (rc || !s.first)
		return rc;
	tf_sink_anew(&c->sink);
	for (uint32_t i = 0; i < c->image.n_later && !rc && !s.over; i++)
		rc = send_run(&s, i);
	if (!rc && !s.over)
		rc = tf_sink_end(&c->sink, &c->image, &c->err);
	if (!rc)
		rc = await_answer(&s);
	if (!rc && reply->code)
		rc = tf_fail(&c->err, reply->code, "%s", message);
	return rc;
}

int tf_task_answer(struct tf_task *t, struct tf_reply *reply, char *message)
{
	struct tf_capture *c = &t->capture;
	struct tf_want w;
	int rc = tf_io_read(&c->io, w.magic, sizeof(w.magic), &c->err);

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
	return tf_reply_read_rest(&c->io, reply, message, &c->err);
}
