/* SPDX-License-Identifier: MIT */
/*
 * What the restorer needs to know of locks that a thread holds (owners.h): the threads' ids, their
 * robust lists, the words that blocked calls name, and where in memory to look.
 */
#include "core/restore/build_impl.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define CODE_AROUND    256 /* bytes before and behind: a function of glibc's locks */
#define MAX_NOTES(img) (1024 + 16ull * (img)->n_threads)
#define NOTES_SIZE(img) \
	(sizeof(struct tf_owner_notes) + MAX_NOTES(img) * sizeof(struct tf_owner_note))

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13 /* Linux 5.14 */
#endif

static int by_id(const void *a, const void *b)
{
	uint32_t x = ((const struct tf_owner *)a)->old, y = ((const struct tf_owner *)b)->old;

	return (x > y) - (x < y);
}

void tf_owners_sort(struct tf_owner *owners, uint32_t n)
{
	qsort(owners, n, sizeof(*owners), by_id);
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The lock that the thread goes on to wait for, and that the kernel looks for the owner of; 0:
 * none. */
static uint64_t waits_for(const struct tf_thread *t)
{
	uint64_t arg[6];

	if (tf_arch_next_call(&t->regs, arg) != SYS_futex)
		return 0;
	switch (arg[1] & FUTEX_CMD_MASK) {
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
		return arg[0];
	case FUTEX_WAIT_REQUEUE_PI:
		return arg[4];
	default:
		return 0;
	}
}

/* Whether it goes on to wait for a lock, one of any sort. Number and operation of that call are no
 * ids, though they may be equal to one. */
static bool waits_for_any(const struct tf_thread *t)
{
	uint64_t arg[6];

	if (tf_arch_next_call(&t->regs, arg) != SYS_futex)
		return false;
	switch (arg[1] & FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_WAIT_REQUEUE_PI:
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
		return true;
	default:
		return false;
	}
}

static void put_steps(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_threads && b->owners; i++)
		b->owners[i].step = i ? b->r->first_thread + i - 1 : b->tid_step;
}

/* Of the page that the thread goes on in: it is there, whatever comes later. A call that makes an
 * image of its own process is none of a lock's functions. */
static void put_code(const struct tf_build *b, const struct tf_thread *t, struct tf_owner *o)
{
	uint32_t origin = b->img->source.origin;
	uint64_t pc = tf_arch_native()->pc(&t->regs) & ~UINT64_C(3), page = pc & ~(b->page - 1);
	const struct tf_map *m = tf_image_map_at(b->img, pc);

	if (!m || m->kind == TF_MAP_VDSO || !(m->prot & PROT_READ) || !(m->prot & PROT_EXEC) ||
		page + b->page > m->data_end ||
		(origin != TF_ORIGIN_TASK && origin != TF_ORIGIN_SIGNAL))
		return;
	o->code = pc - page > CODE_AROUND ? pc - CODE_AROUND : page;
	o->n_code = page + b->page - o->code < 2 * CODE_AROUND ? page + b->page - o->code
							       : 2 * CODE_AROUND;
}

static uint64_t put_owners(struct tf_build *b)
{
	uint32_t n = b->img->n_threads;
	struct tf_owner *o;
	uint64_t at = tf_build_data(b, NULL, n * sizeof(*o), 8, &o);

	if (b->r->plan.full)
		return at;
	b->owners = o;
	for (uint32_t i = 0; i < n; i++) {
		const struct tf_thread *t = &b->img->threads[i];

		o[i] = (struct tf_owner){
			.old = (uint32_t)t->tid,
			.robust = t->robust_head,
			.sp = tf_arch_native()->sp(&t->regs),
			.waits = waits_for(t) != 0,
			.call = waits_for_any(t) ? tf_arch_frame_call() : 0,
		};
		put_code(b, t, &o[i]);
	}
	return at;
}

void tf_build_owner_frame(struct tf_build *b, uint32_t thread, uint64_t at)
{
	size_t n;

	if (!b->owners)
		return;
	b->owners[thread].regs = at + tf_arch_frame_general(&n);
	b->owners[thread].n_regs = n;
}

void tf_build_owners_done(struct tf_build *b)
{
	if (b->owners)
		tf_owners_sort(b->owners, b->img->n_threads);
}

/* The next segment from *i on with bytes that the process may write to, and its neighbours. Files
 * that others have are not changed before the process runs, nor for it. */
static bool next_range(const struct tf_image *img, uint32_t *i, struct tf_owner_range *ret)
{
	*ret = (struct tf_owner_range){0};
	for (; *i < img->n_segments; ++*i) {
		const struct tf_segment *g = &img->segments[*i];
		const struct tf_map *m = tf_image_map_at(img, g->vaddr);

		if (!g->filesz || !tf_build_inside_map(img, g->vaddr, g->filesz) ||
			(m && tf_build_is_found(img, m)))
			continue;
		if (ret->end && ret->end != g->vaddr)
			break;
		if (!ret->end)
			ret->start = g->vaddr;
		ret->end = g->vaddr + g->filesz;
	}
	return ret->end;
}

static uint64_t count_ranges(const struct tf_image *img)
{
	struct tf_owner_range range;
	uint64_t n = 0;

	for (uint32_t i = 0; next_range(img, &i, &range);)
		n++;
	return n;
}

static uint64_t put_ranges(struct tf_build *b, uint64_t n, struct tf_owner_range **ret)
{
	uint64_t at = tf_build_data(b, NULL, n * sizeof(**ret), 8, ret);
	uint32_t i = 0;

	for (uint64_t k = 0; !b->r->plan.full && k < n; k++)
		next_range(b->img, &i, &(*ret)[k]);
	return at;
}

/* What did not come before, of the ranges. */
static uint64_t put_parts(
	struct tf_build *b, const struct tf_owner_range *range, uint64_t n_ranges, uint64_t *ret_n)
{
	const struct tf_image *img = b->img;
	uint64_t most = n_ranges + img->n_staged, n = 0;
	struct tf_owner_range *part;
	uint64_t at = tf_build_data(b, NULL, most * sizeof(*part), 8, &part);
	uint32_t k = 0;

	for (uint64_t i = 0; !b->r->plan.full && i < n_ranges; i++) {
		uint64_t from = range[i].start;

		while (k < img->n_staged && img->staged[k].end <= from)
			k++;
		for (; k < img->n_staged && img->staged[k].start < range[i].end; k++) {
			if (img->staged[k].start > from)
				part[n++] = (struct tf_owner_range){from, img->staged[k].start};
			from = img->staged[k].end;
		}
		if (from < range[i].end)
			part[n++] = (struct tf_owner_range){from, range[i].end};
	}
	*ret_n = n;
	return at;
}

static uint64_t put_words(struct tf_build *b, uint64_t *ret_n)
{
	uint64_t *word, at = tf_build_data(b, NULL, b->img->n_threads * sizeof(*word), 8, &word);
	uint64_t n = 0;

	*ret_n = 0;
	if (b->r->plan.full)
		return at;
	for (uint32_t i = 0; i < b->img->n_threads; i++) {
		word[n] = waits_for(&b->img->threads[i]);
		n += word[n] != 0;
	}
	qsort(word, n, sizeof(*word), by_address);
	for (uint64_t i = 0; i < n; i++)
		if (!i || word[i] != word[i - 1])
			word[(*ret_n)++] = word[i];
	return at;
}

/* What a zygote finds is not looked for in each of its forks. */
static uint64_t put_notes(struct tf_build *b)
{
	struct tf_owner_notes *notes;
	uint64_t at = tf_build_data(b, NULL, NOTES_SIZE(b->img), 8, &notes);

	if (!b->r->plan.full)
		notes->max = MAX_NOTES(b->img);
	return at;
}

static void put_all(struct tf_build *b)
{
	struct tf_owners *o;
	uint64_t at = tf_build_data(b, NULL, sizeof(*o), 8, &o);
	struct tf_owner_range *range;

	if (b->r->plan.full)
		return;
	b->r->owners_at = at;
	o->page = b->page;
	o->found = (uint64_t *)b->r->found_at;
	o->n_owners = b->img->n_threads;
	o->owner = (struct tf_owner *)put_owners(b);
	o->n_ranges = count_ranges(b->img);
	o->range = (const struct tf_owner_range *)put_ranges(b, o->n_ranges, &range);
	o->part = o->range;
	o->n_parts = o->n_ranges;
	if (b->img->n_staged)
		o->part = (const struct tf_owner_range *)put_parts(
			b, range, o->n_ranges, &o->n_parts);
	o->n_held = b->img->n_held;
	o->held = (const uint64_t *)tf_build_data(
		b, b->img->held, o->n_held * sizeof(*o->held), 8, NULL);
	o->word = (const uint64_t *)put_words(b, &o->n_words);
	if (b->r->zygote)
		o->notes = (struct tf_owner_notes *)put_notes(b);
}

static void plan_owners(struct tf_build *b, enum tf_owners_how how)
{
	struct tf_step *s = tf_plan_add(&b->r->plan, TF_OP_OWNERS, "held locks");

	s->arg[0] = b->r->owners_at;
	s->arg[1] = b->img->n_threads;
	s->arg[2] = how;
}

void tf_build_owners_noted(struct tf_build *b)
{
	put_all(b);
	plan_owners(b, TF_OWNERS_NOTE);
}

void tf_build_owners(struct tf_build *b)
{
	if (b->r->same_ids)
		return;
	if (!b->r->owners_at)
		put_all(b);
	put_steps(b);
	plan_owners(b, b->r->zygote ? TF_OWNERS_NOTED : TF_OWNERS_CHANGE);
}

uint64_t tf_build_notes_size(const struct tf_image *img)
{
	return NOTES_SIZE(img) + 8;
}

uint64_t tf_build_owners_size(const struct tf_image *img)
{
	return sizeof(struct tf_owners) +
	       img->n_threads * (sizeof(struct tf_owner) + sizeof(uint64_t)) +
	       (2 * count_ranges(img) + img->n_staged) * sizeof(struct tf_owner_range) +
	       img->n_held * sizeof(uint64_t) + 48;
}
