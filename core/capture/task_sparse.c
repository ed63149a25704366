/* SPDX-License-Identifier: MIT */
/*
 * Where the pages of an enormous reservation are, on a kernel that tells of each absent page by
 * itself: terabytes, for a program under AddressSanitizer. smaps tells of a mapping only whether
 * there is anything in it; so the fork's are cut into parts, and it is asked again. What cuts them
 * is that every other part is (not) for core dumps: nobody sees that of a fork, and the image has
 * the flags from before.
 */
#include "core/capture/task_impl.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/base/maps.h"

#define LARGE     (UINT64_C(16) << 30) /* smaller ones are looked at page by page */
#define WHOLE     (UINT64_C(32) << 20) /* smaller ones are looked at before a post-copy, too */
#define PARTS_MAX 65530                /* vm.max_map_count, that is */

/* Parts begin at multiples of these: no huge page of 4 KiB pages is cut. */
static const uint64_t part_sizes[] = {UINT64_C(64) << 30, UINT64_C(2) << 30, UINT64_C(64) << 20};

struct parts {
	struct tf_smap *at;
	uint32_t n;
	bool too_many;
};

static void take_part(void *ctx, const struct tf_smap *m)
{
	struct parts *p = ctx;

	if (!m->resident)
		return;
	p->too_many |= p->n == PARTS_MAX;
	if (!p->too_many)
		p->at[p->n++] = *m;
}

static int read_parts(struct tf_task *t, struct parts *p)
{
	char path[TF_TASK_PATH];

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)t->seen);
	p->n = 0;
	return tf_smaps_each(&t->capture.arena, path, take_part, p, &t->capture.err);
}

/* Mostly empty, and large enough for several parts. */
static bool is_sparse(const struct tf_smap *m, uint64_t part)
{
	uint64_t size = m->end - m->start;

	return size > part && m->resident < size / 16;
}

/* False: it has as many mappings as it may. */
static bool cut(struct tf_task *t, const struct tf_smap *m, uint64_t part)
{
	uint64_t advice = m->vmflags & TF_VMF_DONTDUMP ? MADV_DODUMP : MADV_DONTDUMP;
	uint64_t at = (m->start + part - 1) & ~(part - 1), n;

	for (; at < m->end; at += 2 * part) {
		n = m->end - at < part ? m->end - at : part;
		if (tf_task_shot_call(t, SYS_madvise, at, n, advice))
			return false;
	}
	return true;
}

static int cut_all(struct tf_task *t, struct parts *p, uint64_t part)
{
	bool can = true, any = false;

	for (uint32_t i = 0; i < p->n && can; i++)
		if (is_sparse(&p->at[i], part)) {
			any = true;
			can = cut(t, &p->at[i], part);
		}
	return any ? read_parts(t, p) : 0;
}

static bool has_large(const struct tf_image *img)
{
	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].end - img->maps[i].start >= LARGE)
			return true;
	return false;
}

int tf_task_find_used(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct parts p = {0};
	int rc;

	if (!has_large(&c->image) || tf_capture_lists_pages(tf_task_pagemap(t)))
		return 0;
	p.at = tf_arena_array(&c->arena, PARTS_MAX, sizeof(*p.at));
	if (!p.at)
		return TELEFORK_E_NOMEM;
	rc = read_parts(t, &p);
	for (size_t i = 0; t->shot.x.tid && i < sizeof(part_sizes) / sizeof(*part_sizes); i++)
		if (!rc)
			rc = cut_all(t, &p, part_sizes[i]);
	if (rc || p.too_many)
		return rc;
	t->used = p.at;
	t->n_used = p.n;
	return 0;
}

static bool may_be_whole(const struct tf_map *m)
{
	return tf_map_may_wait(m) && m->kind != TF_MAP_FILE && m->end - m->start >= WHOLE;
}

void tf_task_guess_whole(struct tf_task *t)
{
	const struct tf_image *img = &t->capture.image;
	char path[TF_TASK_PATH], status[4096];
	uint64_t large = 0, present;

	if (!t->post_copy || t->used)
		return;
	for (uint32_t i = 0; i < img->n_maps; i++)
		large += may_be_whole(&img->maps[i]) ? img->maps[i].end - img->maps[i].start : 0;
	if (!large || !tf_capture_lists_pages(tf_task_pagemap(t)))
		return;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)t->seen);
	tf_proc_peek(path, status, sizeof(status));
	present = (tf_text_number(status, "\nRssAnon:", 10, 0) +
			  tf_text_number(status, "\nVmSwap:", 10, 0))
		  << 10;
	t->whole = present >= large - large / 32;
}

bool tf_task_is_whole(const struct tf_task *t, const struct tf_map *m)
{
	return t->whole && may_be_whole(m);
}

int tf_task_scan(struct tf_task *t, const struct tf_map *m)
{
	struct tf_capture *c = &t->capture;
	int rc = 0;

	if (tf_task_is_whole(t, m))
		return tf_capture_add_run(c, m->start, m->end);
	if (!t->used)
		return tf_capture_scan(c, tf_task_pagemap(t), m->start, m->end);
	for (uint32_t i = 0; i < t->n_used && !rc; i++) {
		const struct tf_smap *u = &t->used[i];
		uint64_t start = u->start > m->start ? u->start : m->start;
		uint64_t end = u->end < m->end ? u->end : m->end;

		if (start < end)
			rc = tf_capture_scan(c, tf_task_pagemap(t), start, end);
	}
	return rc;
}
