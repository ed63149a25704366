/* SPDX-License-Identifier: MIT */
/*
 * Pre-copy, when the process stands: what of its memory came in rounds (rounds.h) and is still as
 * it was then. Nothing here may take longer for more memory than a look at its page tables does:
 * smaps was read before.
 */
#include "core/capture/rounds.h"
#include "core/capture/task_impl.h"

#include <stdio.h>
#include <stdlib.h>

/* Of one piece once: what they have in common is, unless it was unmapped and mapped anew. */
static bool is_of(const struct tf_map *a, const struct tf_map *b)
{
	bool file = a->kind == TF_MAP_FILE;

	return a->start < b->end && b->start < a->end && a->flags == b->flags &&
	       a->kind == b->kind && a->dev == b->dev && a->ino == b->ino &&
	       (!file || a->offset - a->start == b->offset - b->start);
}

static void take_flags(struct tf_map *to, const struct tf_map *from)
{
	to->vmflags = from->vmflags;
	to->huge = from->huge;
	to->key = from->key;
}

/* maps says all but flags, keys and sizes of pages: those of a mapping that was there before, or of
 * a part of it, are what they were. *ret: how many there are up to the last one that is new. */
static void take_known(struct tf_image *img, const struct tf_rounds *r, uint32_t *ret)
{
	uint32_t k = 0;

	*ret = 0;
	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_map *m = &img->maps[i];
		uint32_t j;

		while (k < r->n_maps && r->maps[k].end <= m->start)
			k++;
		for (j = k; j < r->n_maps && r->maps[j].start < m->end; j++)
			if (is_of(m, &r->maps[j]))
				break;
		if (j < r->n_maps && r->maps[j].start < m->end)
			take_flags(m, &r->maps[j]);
		else
			*ret = i + 1;
	}
}

/* Only what is new is looked for in smaps, and what lies below it: new memory lies below other, by
 * default. */
int tf_task_rounds_maps(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	struct tf_map *first;
	uint32_t n, n_first;
	char path[TF_TASK_PATH];
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)t->seen);
	rc = tf_maps_read(&t->capture.arena, path, &img->maps, &img->n_maps, &t->capture.err);
	if (rc)
		return rc;
	take_known(img, t->rounds, &n);
	if (!n)
		return 1;
	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)t->seen);
	rc = tf_maps_read_first(&t->capture.arena, path, n, &first, &n_first, &t->capture.err);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < n_first && i < n; i++)
		if (first[i].start == img->maps[i].start && first[i].end == img->maps[i].end)
			take_flags(&img->maps[i], &first[i]);
		else
			return 0;
	return n_first >= n;
}

/* --- pages --- */

struct looking {
	struct tf_capture *c;
	struct tf_runs *clean;
};

static int take(void *ctx, uint64_t start, uint64_t end, bool clean)
{
	struct looking *l = ctx;
	int rc = tf_capture_add_run(l->c, start, end);

	return rc || !clean ? rc : tf_runs_add(l->clean, start, end);
}

int tf_task_rounds_scan(struct tf_task *t, const struct tf_map *m)
{
	struct tf_rounds *r = t->rounds;
	struct looking l = {&t->capture, &r->clean};
	const struct tf_runs before = r->clean;
	const struct tf_run last = before.n ? before.v[before.n - 1] : (struct tf_run){0};
	int rc;

	if (r->track.way == TF_TRACK_SOFT && !tf_track_is_ours(&r->track, m->start, m->end))
		return tf_task_scan(t, m); /* it may be enormous, and nearly empty */
	rc = tf_track_look(
		&r->track, tf_task_pagemap(t), m->start, m->end, take, &l, &t->capture.err);
	if (rc || tf_track_is_ours(&r->track, m->start, m->end))
		return rc;
	r->clean.n = before.n;
	if (before.n)
		r->clean.v[before.n - 1] = last;
	return 0;
}

/* --- what came --- */

/* Whether the other side was told of it with these flags; *k: the first place that may lie in it.
 */
static bool is_as_told(const struct tf_rounds *r, const struct tf_map *m, size_t *k)
{
	while (*k < r->n_place && r->place[*k].end <= m->start)
		++*k;
	for (size_t i = *k; i < r->n_place && r->place[i].start < m->end; i++)
		if (r->place[i].bytes && r->place[i].vmflags != (m->vmflags & TF_PLACE_FLAGS))
			return false;
	return tf_map_may_be_staged(m);
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int settle_held(struct tf_task *t, const struct tf_runs *staged)
{
	struct tf_image *img = &t->capture.image;
	struct tf_rounds *r = t->rounds;

	if (r->n_held)
		qsort(r->held, r->n_held, sizeof(*r->held), by_address);
	img->held = tf_arena_array(&t->capture.arena, r->n_held + 1, sizeof(*img->held));
	if (!img->held)
		return TELEFORK_E_NOMEM;
	for (size_t i = 0; i < r->n_held; i++) {
		uint64_t at = r->held[i];

		if ((i && at == r->held[i - 1]) || !tf_runs_meet(staged, at, at + 4))
			continue;
		if (img->n_held == TF_MAX_HELD)
			return TELEFORK_E_LIMIT;
		img->held[img->n_held++] = at;
	}
	return 0;
}

static int by_start(const void *a, const void *b)
{
	uint64_t x = ((const struct tf_round_place *)a)->start,
		 y = ((const struct tf_round_place *)b)->start;

	return (x > y) - (x < y);
}

/* Only those that bytes came from: they do not overlap. */
static void sort_places(struct tf_rounds *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_place; i++)
		if (r->place[i].bytes)
			r->place[n++] = r->place[i];
	r->n_place = r->told = n;
	if (n)
		qsort(r->place, n, sizeof(*r->place), by_start);
}

/* None of them crosses the border of a mapping. */
static int put_staged(struct tf_task *t, const struct tf_runs *staged)
{
	struct tf_image *img = &t->capture.image;
	size_t most = staged->n + img->n_maps, place = 0, k = 0;

	img->staged = tf_arena_array(&t->capture.arena, most + 1, sizeof(*img->staged));
	if (!img->staged)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_maps && k < staged->n; i++) {
		const struct tf_map *m = &img->maps[i];
		bool good = is_as_told(t->rounds, m, &place);

		for (; k < staged->n && staged->v[k].start < m->end; k++) {
			struct tf_run run = staged->v[k];

			run.start = run.start > m->start ? run.start : m->start;
			run.end = run.end < m->end ? run.end : m->end;
			if (good && img->n_staged == TF_MAX_STAGED)
				return TELEFORK_E_LIMIT;
			if (good)
				img->staged[img->n_staged++] = run;
			if (staged->v[k].end > m->end)
				break;
		}
	}
	return 0;
}

static int settle_staged(struct tf_task *t, struct tf_runs *both)
{
	struct tf_image *img = &t->capture.image;
	struct tf_rounds *r = t->rounds;
	struct tf_runs staged;
	int rc = tf_runs_make(both, TF_RUNS_BOTH, &r->sent, &r->clean);

	sort_places(r);
	if (!rc)
		rc = put_staged(t, both);
	staged = (struct tf_runs){.v = img->staged, .n = img->n_staged};
	return rc ? rc : settle_held(t, &staged);
}

int tf_task_rounds_settle(struct tf_task *t)
{
	struct tf_runs both = {0};
	int rc = t->rounds ? settle_staged(t, &both) : 0;

	tf_runs_done(&both);
	return rc;
}
